"""Markdown that texts of strangers cannot break out of. Each function gives one line."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from cascadezoo.util.text import clean_remote

__all__ = ["code", "fenced", "line", "number", "plain", "power", "table", "times"]

_LONGEST = 4000
_SPECIAL = frozenset("\\`*_[]<>#|!~$&")
_LINE_STARTS = frozenset("-+=:")


def line(text: object) -> str:
    """Text for the front matter: one line, and never none."""
    return _without_comments(clean_remote(text, 300)) or "unnamed"


def plain(text: object) -> str:
    r"""Text that is nothing but text, in a paragraph as in a cell.

    >>> plain("a *b* <script>\n| c")
    'a \\*b\\* \\<script\\> \\| c'
    """
    one = clean_remote(text, _LONGEST)
    escaped = "".join(f"\\{c}" if c in _SPECIAL else c for c in one)
    return f"\\{escaped}" if one[:1] in _LINE_STARTS else escaped


def code(text: object) -> str:
    r"""A code span, in a paragraph as in a cell.

    >>> code("a`b|c <!-- x -->")
    '``a`b\\|c <! -- x -- >``'
    """
    one = _without_comments(clean_remote(text, _LONGEST)).replace("|", "\\|")
    longest = max((len(run) for run in re.findall("`+", one)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if one.startswith("`") or one.endswith("`") or not one.strip() else ""
    return f"{fence}{pad}{one}{pad}{fence}"


def fenced(language: str, lines: Iterable[str]) -> str:
    """A block of code; no line can end it.

    Args:
        language: as ``bash``.
        lines: each stays one line, whatever is in it.
    """
    rows = ["".join(c for c in line[:_LONGEST] if c.isprintable()) for line in lines]
    rows = [_without_comments(row) for row in rows]
    longest = max((len(run) for row in rows for run in re.findall("`+", row)), default=0)
    fence = "`" * max(3, longest + 1)
    return "\n".join([f"{fence}{language}", *rows, fence])


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = ()) -> str:
    """A table of cells that were escaped before.

    Args:
        head: the columns' names.
        rows: one cell a column.
        right: the numbers of the columns that are aligned to the right.
    """
    aligned = frozenset(right)
    dashes = ["---:" if column in aligned else "---" for column in range(len(head))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, dashes, *rows))


def number(value: float, like: float | None = None) -> str:
    """A number with about four digits.

    Args:
        value: the number.
        like: show as many decimals as of this one.

    >>> number(14.8882), number(1.9563, 14.8882), number(0.0912), number(12345.6), number(0.0)
    ('14.89', '1.96', '0.0912', '12346', '0.0000')
    """
    size = abs(value if like is None else like)
    if size and not 1e-4 <= size < 1e9:
        return f"{value:.3e}"
    decimals = 4 if size < 1 else max(0, 3 - math.floor(math.log10(size)))
    return f"{value:.{decimals}f}"


def _without_comments(text: str) -> str:
    """The ends of a comment would be taken for those of a generated block."""
    return text.replace("<!--", "<! --").replace("-->", "-- >")


def power(scale: float) -> str:
    """What stands behind a number that was multiplied by a scale.

    >>> power(1000.0), power(1.0), power(100.0), power(3.0)
    (' x 10^-3', '', ' x 10^-2', ' x 1/3.0')
    """
    if scale == 1.0:
        return ""
    exponent = round(math.log10(scale))
    return f" x 10^{-exponent}" if scale == 10.0**exponent else f" x 1/{scale!r}"


def times(text: str) -> float | None:
    """What the number before a text of :func:`power` is to be multiplied by; None if none.

    >>> times(" x 10^-3"), times(""), times(" x 1/4.0"), times(" dB")
    (0.001, 1.0, 0.25, None)
    """
    if not text.strip():
        return 1.0
    found = re.fullmatch(r" x (?:10\^(-?\d{1,3})|1/(\d[\d.e+-]{0,30}))", text)
    if found is None:
        return None
    if found[1] is not None:
        return 10.0 ** int(found[1])
    try:
        return 1.0 / float(found[2])
    except (ValueError, ZeroDivisionError):
        return None
