"""What commands print: text that a terminal cannot be tricked with, tables, JSON.

Data goes to stdout, all else to stderr. ``--help`` imports this, hence the imports inside.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import click

__all__ = ["clean", "echo", "echo_json", "human_bytes", "human_count", "human_seconds", "table"]

# All that is not printable: C0 and C1 controls, DEL, invisible and bidirectional format
# characters, line separators, halves of surrogate pairs. A class for the quick look; what it finds
# is then judged by its category.
_SUSPECT = re.compile("[^\x20-\x7e\xa0-\xac\xae-\u02ff]")
_NARROWEST = 24
_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def clean(text: object, *, keep: str = "") -> str:
    r"""Text with every control character written out, as ``\x1b``.

    Specs, model folders and file names come from strangers; what they hold must not move the
    cursor, change colours or reorder what is read.

    Args:
        text: anything; ``str`` is taken of it.
        keep: control characters to leave as they are, e.g. ``"\n"``.

    >>> clean("a\x1b[31mb\u202ec\n")
    'a\\x1b[31mb\\u202ec\\n'
    """

    def escape(match: re.Match[str]) -> str:
        char = match[0]
        if char in keep or unicodedata.category(char) not in _UNPRINTABLE:
            return char
        return char.encode("unicode_escape").decode("ascii")

    return _SUSPECT.sub(escape, str(text))


def echo(text: object = "", *, err: bool = False) -> None:
    """Print a line or several, cleaned, to stdout or stderr."""
    stream = sys.stderr if err else sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    shown = clean(text, keep="\n")
    click.echo(shown.encode(encoding, "backslashreplace").decode(encoding), err=err)


def echo_json(data: Any, *, err: bool = False, indent: int | None = 2) -> None:
    """Print data as JSON: keys in their order, control characters escaped, no NaN."""
    import json

    text = json.dumps(data, indent=indent, ensure_ascii=False, allow_nan=False)
    encoding = getattr(sys.stderr if err else sys.stdout, "encoding", None) or "utf-8"

    def escape(match: re.Match[str]) -> str:
        char = match[0]
        harmless = char == "\n" or unicodedata.category(char) not in _UNPRINTABLE
        return char if harmless and _fits(char, encoding) else json.dumps(char)[1:-1]

    click.echo(_SUSPECT.sub(escape, text), err=err)


def table(
    head: Sequence[str], rows: Iterable[Sequence[object]], *, right: Iterable[int] = ()
) -> str:
    """Aligned columns under a head; on a terminal the last column is wrapped to its width.

    Args:
        head: the columns' names, in capitals by habit.
        rows: one cell a column; None is shown as ``-``.
        right: the numbers of the columns that are aligned to the right.
    """
    import shutil
    import textwrap

    cells = [list(head)]
    cells += [["-" if cell is None else clean(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    aligned = frozenset(right)
    before = sum(widths[:-1]) + 2 * (len(widths) - 1)
    room = shutil.get_terminal_size().columns - before if sys.stdout.isatty() else 0
    lines = []
    for row in cells:
        parts = textwrap.wrap(row[-1], room) if room >= _NARROWEST else [row[-1]]
        row = [*row[:-1], *parts[:1]] if parts else row
        lines.append(
            "  ".join(
                cell.rjust(width) if column in aligned else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
        )
        lines += [" " * before + part for part in parts[1:]]
    return "\n".join(lines)


def human_bytes(size: float | None) -> str:
    """A number of bytes in words.

    >>> human_bytes(1536), human_bytes(None)
    ('1.5 KiB', '-')
    """
    if size is None:
        return "-"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if abs(size) < 1024 or unit == "PiB":
            break
        size /= 1024
    return f"{size:.0f} B" if unit == "B" else f"{size:,.1f} {unit}"


def human_count(count: float | None) -> str:
    """A large number with three digits.

    >>> human_count(852_739), human_count(1.23e9), human_count(12), human_count(None)
    ('853 k', '1.23 G', '12', '-')
    """
    if count is None:
        return "-"
    if abs(count) < 1000:
        return f"{count:.3g}"
    for unit in ("k", "M", "G", "T", "P", "E"):
        count /= 1000
        if abs(count) < 999.5 or unit == "E":
            break
    digits = 2 if abs(count) < 9.995 else 1 if abs(count) < 99.95 else 0
    return f"{count:,.{digits}f} {unit}"


def human_seconds(seconds: float) -> str:
    """A duration.

    >>> human_seconds(3.21), human_seconds(155), human_seconds(7384)
    ('3.2 s', '2:35 min', '2:03:04 h')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} h" if hours else f"{minutes}:{rest:02} min"


def _fits(char: str, encoding: str) -> bool:
    try:
        char.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
