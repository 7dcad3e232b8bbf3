"""What pages are made of: tables, pictures, facts, strips. Free of torch and matplotlib."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from cascadezoo.errors import InputError
from cascadezoo.report.html import MISSING, Markup, element, join, number

__all__ = [
    "Column",
    "Row",
    "TableCell",
    "data_uri",
    "facts",
    "folded",
    "layers",
    "picture",
    "strip",
    "table",
]

_LONG = 40
_WIDE = 6
"""A table of more columns keeps its first one in sight while the others scroll."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Args:
        title: what stands above it.
        numeric: numbers, set to the right and sorted as numbers.
        note: what is said below the title: a unit.
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
        shown: what stands in it; None for what is not known.
        value: what it is sorted by; None takes what is shown, if that is text.
        note: a fainter line below.
    """

    shown: object
    value: float | str | None = None
    note: str = ""


Row = Sequence["TableCell | str | float | None"]
"""The cells of a row, from left to right."""


def table(
    columns: Sequence[Column],
    rows: Iterable[Row],
    *,
    label: str,
    sortable: bool = True,
) -> Markup:
    """A table that can be sorted by each column; it scrolls in a box of its own.

    Args:
        columns: from left to right; the first one names its row.
        rows: one cell a column; numbers are shown with three digits, None as not known.
        label: what the table is, for those who do not see it.
        sortable: put buttons into the head.

    Raises:
        InputError: a row of another length.
    """
    body = []
    for row in rows:
        if len(row) != len(columns):
            raise InputError(
                f"table {label!r}: {len(row)} cells under {len(columns)} columns",
                code="input-table-row",
                name=label,
            )
        cells = [_cell(place, cell, columns[place]) for place, cell in enumerate(row)]
        body.append(element("tr", *cells))
    head = [_head(column, sortable) for column in columns]
    whole = element(
        "table",
        element("thead", element("tr", *head)),
        element("tbody", *body),
        class_="sortable" if sortable else None,
    )
    kind = "scroll wide" if len(columns) > _WIDE else "scroll"
    return element("div", whole, class_=kind, role="region", aria_label=label, tabindex="0")


def _head(column: Column, sortable: bool) -> Markup:
    inside: Markup | str = column.title
    note = element("span", column.note, class_="sub") if column.note else ""
    return element(
        "th",
        element("button", inside, type="button") if sortable else inside,
        note,
        scope="col",
        class_="right" if column.numeric else None,
        aria_sort="none" if sortable else None,
        data_numeric=column.numeric and sortable,
    )


def _cell(place: int, given: TableCell | str | float | None, column: Column) -> Markup:
    cell = given if isinstance(given, TableCell) else TableCell(given)
    shown = cell.shown
    value = cell.value
    if value is None and shown is not None:
        is_number = isinstance(shown, (int, float)) and not isinstance(shown, bool)
        value = shown if is_number or not column.numeric else None  # type: ignore[assignment]
    if isinstance(value, float) and not math.isfinite(value) and math.isnan(value):
        value = None
    if isinstance(shown, (int, float)) and not isinstance(shown, bool):
        shown = _number(shown, column.places)
    known = shown is not None
    kinds = ["right"] if column.numeric else []
    kinds += [] if known else ["missing"]
    kinds += ["long"] if place and isinstance(shown, str) and len(shown) > _LONG else []
    name = "th" if place == 0 else "td"
    return element(
        name,
        shown if known else element("span", MISSING, title="not recorded"),
        element("span", cell.note, class_="sub") if cell.note else "",
        scope="row" if place == 0 else None,
        class_=" ".join(kinds) or None,
        data_value=None if value is None else repr(value) if isinstance(value, float) else value,
    )


def _number(value: float, places: int | None) -> str:
    if places is None or not math.isfinite(value) or abs(value) >= 1e12:
        return number(value)
    # What would be shown as 0 and is not keeps its digits.
    small = value != 0 and abs(value) < 0.5 * 10**-places
    return number(value, 2) if small else f"{value:,.{places}f}"


def data_uri(image: Image.Image | bytes | Path) -> tuple[Markup, int, int]:
    """A picture as an address that holds it, and its width and height in pixels.

    A PIL image is coded without loss as PNG or WebP, whichever is smaller.

    Raises:
        InputError: the file or the bytes are no PNG, JPEG or WebP.
    """
    if isinstance(image, Image.Image):
        coded = {"png": io.BytesIO(), "webp": io.BytesIO()}
        image.save(coded["png"], format="PNG", optimize=True)
        image.save(coded["webp"], format="WEBP", lossless=True, exact=True, method=4)
        name, file = min(coded.items(), key=lambda row: row[1].tell())
        return _uri(name, file.getvalue()), image.width, image.height
    data = image.read_bytes() if isinstance(image, Path) else image
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as found:
            found.load()
            return _uri(str(found.format).lower(), data), found.width, found.height
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        source = image if isinstance(image, Path) else f"{len(data)} bytes"
        raise InputError(
            f"{source} cannot be shown as a picture: {error}", code="input-picture-unreadable"
        ) from error


def _uri(name: str, data: bytes) -> Markup:
    return Markup(f"data:image/{name};base64,{base64.b64encode(data).decode()}")


def picture(image: Image.Image | bytes | Path, alt: str, caption: object = "") -> Markup:
    """A picture inside the page.

    Args:
        image: see :func:`data_uri`.
        alt: what there is to see.
        caption: below it.
    """
    below = element("figcaption", caption) if caption else ""
    return element("figure", _image(image, alt), below)


def _image(image: Image.Image | bytes | Path, alt: str) -> Markup:
    uri, width, height = data_uri(image)
    return element("img", src=uri, alt=alt, width=width, height=height, class_="pixels")


def strip(
    columns: Sequence[tuple[str, str, Image.Image]], alt: str, caption: object = ""
) -> Markup:
    """Pictures side by side, each with a name and a note above it.

    Args:
        columns: name, note and picture, from left to right.
        alt: what the whole shows.
        caption: below it.
    """
    parts = [
        element(
            "div",
            element("p", element("b", name, title=name), note, class_="over"),
            _image(image, f"{alt}: {name}"),
        )
        for name, note, image in columns
    ]
    kind = "strip" if len(columns) < 6 else "strip long"
    below = element("figcaption", caption) if caption else ""
    return element("figure", element("div", *parts, class_=kind), below)


def layers(rows: Sequence[tuple[str, str, Image.Image]], alt: str, caption: object = "") -> Markup:
    """Pictures one below the other, each with a name and a note above it; see :func:`strip`."""
    parts = [
        element(
            "div",
            element("p", element("b", name), " ", note, class_="over"),
            _image(image, f"{alt}: {name}"),
        )
        for name, note, image in rows
    ]
    below = element("figcaption", caption) if caption else ""
    return element("figure", element("div", *parts, class_="layers"), below)


def facts(rows: Iterable[tuple[str, object]]) -> Markup:
    """Short facts with their names; what is None is left out."""
    parts = [
        element("div", element("dt", name), element("dd", value))
        for name, value in rows
        if value is not None
    ]
    return element("dl", *parts, class_="facts") if parts else Markup("")


def folded(title: str, *inside: object) -> Markup:
    """What is folded away until it is asked for; on paper it is open."""
    return element("details", element("summary", title), join(inside))
