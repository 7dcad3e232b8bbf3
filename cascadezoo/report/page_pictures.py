"""Pictures inside pages: addresses that contain them, and sheets of small images.

Free of torch and matplotlib.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from PIL import Image

from cascadezoo.errors import InputError

__all__ = ["InlinePicture", "inline_picture", "sheet"]

CELL = 96
LARGEST = 256


@dataclass(frozen=True, slots=True)
class InlinePicture:
    """A picture inside a page.

    Args:
        uri: a ``data:`` address that contains it.
        width: width in pixels.
        height: height in pixels.
    """

    uri: Markup
    width: int
    height: int


def inline_picture(image: Image.Image | bytes | Path) -> InlinePicture:
    """Return a picture as an address that contains it.

    A PIL image is encoded losslessly as PNG or WebP, whichever is smaller. Files and bytes are
    used unchanged.

    Raises:
        InputError: the file or the bytes are not PNG, JPEG or WebP.
    """
    if isinstance(image, Image.Image):
        encoded = {"png": io.BytesIO(), "webp": io.BytesIO()}
        image.save(encoded["png"], format="PNG", optimize=True)
        image.save(encoded["webp"], format="WEBP", lossless=True, exact=True, method=4)
        name, file = min(encoded.items(), key=lambda row: row[1].tell())
        return InlinePicture(_uri(name, file.getvalue()), image.width, image.height)
    data = image.read_bytes() if isinstance(image, Path) else image
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as opened:
            opened.load()
            uri = _uri(str(opened.format).lower(), data)
            return InlinePicture(uri, opened.width, opened.height)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        source = image if isinstance(image, Path) else f"{len(data)} bytes"
        raise InputError(
            f"{source} cannot be read as a picture: {error}", code="input-picture-unreadable"
        ) from error


def _uri(name: str, data: bytes) -> Markup:
    # Base64 needs no escaping, and is longer than the limit of texts in pages.
    return Markup(f"data:image/{name};base64,{base64.b64encode(data).decode()}")  # noqa: S704


def sheet(
    images: Sequence[Image.Image], columns: int, *, cell: int = CELL, gap: int = 4
) -> Image.Image:
    """Arrange images in rows, enlarged by an integer factor so that pixels remain squares.

    Args:
        images: at least one image, all of one size.
        columns: images in a row; fewer images make one row.
        cell: approximate width of each drawn image in pixels; images wider than this and than
            256 are downsampled.
        gap: pixels between the images.

    Returns:
        An RGBA picture, transparent between the images.

    Raises:
        InputError: no images, or no columns.
    """
    if not images or columns < 1:
        raise InputError(
            f"cannot arrange {len(images)} images in {columns} columns", code="input-sheet-invalid"
        )
    columns = min(columns, len(images))
    width, height = _drawn(images[0].size, cell)
    rows = math.ceil(len(images) / columns)
    size = (columns * (width + gap) - gap, rows * (height + gap) - gap)
    whole = Image.new("RGBA", size, (0, 0, 0, 0))
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        enlarged = width >= image.width
        resampling = Image.Resampling.NEAREST if enlarged else Image.Resampling.LANCZOS
        drawn = image.convert("RGB").resize((width, height), resampling)
        whole.paste(drawn, (column * (width + gap), row * (height + gap)))
    return whole


def _drawn(size: tuple[int, int], cell: int) -> tuple[int, int]:
    largest = max(size)
    if largest > max(cell, LARGEST):
        return tuple(max(1, round(s * max(cell, LARGEST) / largest)) for s in size)  # type: ignore[return-value]
    factor = max(1, round(cell / largest))
    return size[0] * factor, size[1] * factor
