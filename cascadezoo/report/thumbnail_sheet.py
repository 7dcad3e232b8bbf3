"""Many small images as one, on nothing, so that the page shows between them. Free of torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image

from cascadezoo.errors import InputError

__all__ = ["sheet"]

CELL = 96
LARGEST = 256


def sheet(
    images: Sequence[Image.Image], columns: int, *, cell: int = CELL, gap: int = 4
) -> Image.Image:
    """Images in rows, enlarged by a whole factor so that every pixel stays a square.

    Args:
        images: of one size, at least one.
        columns: images in a row; fewer images make one row.
        cell: about how many pixels wide each is drawn; larger ones are made smaller, smoothly,
            where they are wider than 256 and than this.
        gap: pixels between them.

    Returns:
        An RGBA picture, transparent between the images.

    Raises:
        InputError: no images, or no columns.
    """
    if not images or columns < 1:
        raise InputError(
            f"{len(images)} images in {columns} columns make no sheet", code="input-sheet-invalid"
        )
    columns = min(columns, len(images))
    width, height = _drawn(images[0].size, cell)
    rows = math.ceil(len(images) / columns)
    size = (columns * (width + gap) - gap, rows * (height + gap) - gap)
    whole = Image.new("RGBA", size, (0, 0, 0, 0))
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        grown = width >= image.width
        way = Image.Resampling.NEAREST if grown else Image.Resampling.LANCZOS
        drawn = image.convert("RGB").resize((width, height), way)
        whole.paste(drawn, (column * (width + gap), row * (height + gap)))
    return whole


def _drawn(size: tuple[int, int], cell: int) -> tuple[int, int]:
    largest = max(size)
    if largest > max(cell, LARGEST):
        return tuple(max(1, round(s * max(cell, LARGEST) / largest)) for s in size)  # type: ignore[return-value]
    factor = max(1, round(cell / largest))
    return size[0] * factor, size[1] * factor
