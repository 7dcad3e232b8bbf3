"""Tables of pages: cells as text, with their sort values.

Free of torch and matplotlib.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from cascadezoo.errors import InputError
from cascadezoo.util.numbers import page_number

__all__ = ["Column", "PageTable", "Row", "ShownCell", "TableCell"]

_LONG = 40
"""A cell with more characters is long."""
_WIDE = 6
"""A table with more columns keeps its first column in view while the others scroll."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Args:
        title: the column's head.
        numeric: whether cells are numbers: aligned to the right and sorted by value.
        note: a fainter line below the title, such as the unit.
        places: number of decimal places; None shows three significant digits.
    """

    title: str
    numeric: bool = False
    note: str = ""
    places: int | None = None


@dataclass(frozen=True, slots=True)
class TableCell:
    """A cell of a table.

    Args:
        shown: its text or number; None if unknown.
        value: its sort value; None uses the shown text or number.
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
    """A cell for the template.

    Args:
        text: its text; None if unknown.
        value: its sort value; None if it has none.
        note: a fainter line below.
        code: show the text as code.
        classes: its CSS classes.
    """

    text: str | None
    value: str | None
    note: str
    code: bool
    classes: str


class PageTable:
    """A sortable table that scrolls in its own box.

    Args:
        columns: the columns; the first one names the row.
        rows: one cell per column; numbers are shown with three digits, None as unknown.
        label: the table's name for screen readers.
        sortable: whether the head has buttons that sort.

    Raises:
        InputError: a row has a different number of cells.
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
                    f"table {label!r}: a row has {len(row)} cells for {len(columns)} columns",
                    code="input-table-row",
                    name=label,
                )

    @property
    def wide(self) -> bool:
        """Whether the first column stays in view while the others scroll."""
        return len(self.columns) > _WIDE

    @property
    def stacked(self) -> bool:
        """Whether narrow screens show each row as a block, because the table has long texts."""
        return any("long" in cell.classes for row in self.cells() for cell in row)

    def cells(self) -> Iterator[list[ShownCell]]:
        """Yield the rows for the template."""
        for row in self.rows:
            yield [_shown(i, cell, self.columns[i]) for i, cell in enumerate(row)]


def _shown(place: int, content: TableCell | str | float | None, column: Column) -> ShownCell:
    cell = content if isinstance(content, TableCell) else TableCell(content)
    shown, value = cell.shown, cell.value
    if value is None and (isinstance(shown, (int, float)) or not column.numeric):
        value = shown
    if isinstance(value, float) and math.isnan(value):
        value = None
    text = _number(shown, column.places) if isinstance(shown, (int, float)) else shown
    classes = ["right"] if column.numeric else []
    classes += [] if text is not None else ["missing"]
    classes += ["long"] if place and text is not None and len(text) > _LONG else []
    key = None if value is None else repr(value) if isinstance(value, float) else str(value)
    return ShownCell(text, key, cell.note, cell.code, " ".join(classes))


def _number(value: float, places: int | None) -> str:
    if places is None or not math.isfinite(value) or abs(value) >= 1e12:
        return page_number(value)
    # A number that rounds to 0 keeps two digits.
    small = value != 0 and abs(value) < 0.5 * 10**-places
    return page_number(value, 2) if small else f"{value:,.{places}f}"
