"""Tables of pages: their cells as text, with the values they are sorted by.

Free of torch and matplotlib.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from cascadezoo.errors import InputError
from cascadezoo.report.page_text import number

__all__ = ["Column", "PageTable", "Row", "ShownCell", "TableCell"]

_LONG = 40
_WIDE = 6
"""A table of more columns keeps its first one in sight while the others scroll."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Args:
        title: what stands above it.
        numeric: numbers, set to the right and sorted as numbers.
        note: a fainter line below the title, such as the unit.
        places: digits after the point; None shows three significant ones.
    """

    title: str
    numeric: bool = False
    note: str = ""
    places: int | None = None


@dataclass(frozen=True, slots=True)
class TableCell:
    """A cell of a table.

    Args:
        shown: its text or number; None if it is not known.
        value: what it is sorted by; None takes what is shown, if that is text.
        note: a fainter line below.
        code: show the text as code.
    """

    shown: str | float | None
    value: float | str | None = None
    note: str = ""
    code: bool = False


Row = Sequence["TableCell | str | float | None"]
"""The cells of a row, from left to right."""


@dataclass(frozen=True, slots=True)
class ShownCell:
    """A cell as the template writes it.

    Args:
        text: None if it is not known.
        value: what it is sorted by; None if nothing.
        note: a fainter line below.
        code: show the text as code.
        kinds: its CSS classes.
    """

    text: str | None
    value: str | None
    note: str
    code: bool
    kinds: str


class PageTable:
    """A table that can be sorted by each column and scrolls in a box of its own.

    Args:
        columns: from left to right; the first one names its row.
        rows: one cell a column; numbers are shown with three digits, None as not known.
        label: what the table is, for screen readers.
        sortable: put buttons into the head.

    Raises:
        InputError: a row of another length.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        rows: Iterable[Row],
        *,
        label: str,
        sortable: bool = True,
    ) -> None:
        self.columns = columns
        self.rows = [tuple(row) for row in rows]
        self.label = label
        self.sortable = sortable
        for row in self.rows:
            if len(row) != len(columns):
                raise InputError(
                    f"table {label!r}: {len(row)} cells under {len(columns)} columns",
                    code="input-table-row",
                    name=label,
                )

    @property
    def wide(self) -> bool:
        """Whether the first column stays in sight while the others scroll."""
        return len(self.columns) > _WIDE

    @property
    def stacked(self) -> bool:
        """Whether narrow screens show each row as a block: a table with long texts."""
        return any("long" in cell.kinds for row in self.cells() for cell in row)

    def cells(self) -> Iterator[list[ShownCell]]:
        """The rows as the template writes them."""
        for row in self.rows:
            yield [_shown(i, cell, self.columns[i]) for i, cell in enumerate(row)]


def _shown(place: int, given: TableCell | str | float | None, column: Column) -> ShownCell:
    cell = given if isinstance(given, TableCell) else TableCell(given)
    shown, value = cell.shown, cell.value
    if value is None and (isinstance(shown, (int, float)) or not column.numeric):
        value = shown
    if isinstance(value, float) and math.isnan(value):
        value = None
    text = _number(shown, column.places) if isinstance(shown, (int, float)) else shown
    kinds = ["right"] if column.numeric else []
    kinds += [] if text is not None else ["missing"]
    kinds += ["long"] if place and text is not None and len(text) > _LONG else []
    key = None if value is None else repr(value) if isinstance(value, float) else str(value)
    return ShownCell(text, key, cell.note, cell.code, " ".join(kinds))


def _number(value: float, places: int | None) -> str:
    if places is None or not math.isfinite(value) or abs(value) >= 1e12:
        return number(value)
    # What would be shown as 0 and is not keeps its digits.
    small = value != 0 and abs(value) < 0.5 * 10**-places
    return number(value, 2) if small else f"{value:,.{places}f}"
