"""Output of commands: text that is safe in a terminal, tables, JSON.

Data goes to stdout, everything else to stderr. ``--help`` imports this module, so functions import
what they need.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click

from cascadezoo.util.text import SUSPECT, clean, is_invisible

__all__ = ["clean", "echo", "echo_json", "table"]

_MIN_WIDTH = 24


def echo(text: object = "", *, err: bool = False) -> None:
    """Print one or more lines, with control characters escaped and the Hub's token masked."""
    stream = sys.stderr if err else sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    shown = _without_token(clean(text, keep="\n"))
    click.echo(shown.encode(encoding, "backslashreplace").decode(encoding), err=err)


def echo_json(data: Any, *, err: bool = False, indent: int | None = 2) -> None:
    """Print data as JSON: keys in order, no NaN, no control characters, no token of the Hub."""
    import json

    text = _without_token(json.dumps(data, indent=indent, ensure_ascii=False, allow_nan=False))
    encoding = getattr(sys.stderr if err else sys.stdout, "encoding", None) or "utf-8"

    def escape(match: re.Match[str]) -> str:
        char = match[0]
        harmless = char == "\n" or not is_invisible(char)
        return char if harmless and _fits(char, encoding) else json.dumps(char)[1:-1]

    click.echo(SUSPECT.sub(escape, text), err=err)


def _without_token(text: str) -> str:
    """Mask the token: a file of a model that a server sent may contain it."""
    client = sys.modules.get("cascadezoo.hub.client")  # only if the command imported it
    tokens = [os.environ.get("HF_TOKEN"), client.hub_token() if client is not None else None]
    for token in tokens:
        if token and len(token) >= 8:
            text = text.replace(token, "***")
    return text


def table(
    head: Sequence[str], rows: Iterable[Sequence[object]], *, right: Iterable[int] = ()
) -> str:
    """A table with aligned columns; on a terminal the last column is wrapped to its width.

    Args:
        head: the names of the columns, in capitals by convention.
        rows: one cell per column; None is shown as ``-``.
        right: the indices of the right-aligned columns.
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
        parts = textwrap.wrap(row[-1], room) if room >= _MIN_WIDTH else [row[-1]]
        row = [*row[:-1], *parts[:1]] if parts else row
        lines.append(
            "  ".join(
                cell.rjust(width) if column in aligned else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
        )
        lines += [" " * before + part for part in parts[1:]]
    return "\n".join(lines)


def _fits(char: str, encoding: str) -> bool:
    try:
        char.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
