"""A grid of classifier-free guidance: one row per scale, one column per image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from PIL import Image, ImageDraw
from torch import Tensor

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.errors import InputError
from cascadezoo.report.images import (
    GAP,
    INK,
    MARGIN,
    NOTE,
    PAD,
    PAPER,
    common_cell,
    enlarge,
    fit,
    fonts,
    line_height,
    to_pil,
)

__all__ = ["guidance_grid", "sample_guidance"]


def sample_guidance(
    cascade: Cascade,
    scales: Sequence[float],
    n: int,
    *,
    options: Mapping[str, Any] | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[float, Tensor]:
    """Sample images from the same noise with each guidance scale.

    Args:
        cascade: a cascade trained with labels.
        scales: guidance scales for all stages that support guidance.
        n: number of images per scale.
        options: other keywords of :meth:`Cascade.sample`: seed, labels, steps.
        progress: called with the number of sampled images.

    Returns:
        Images [n, C, H, W] in [-1, 1] by scale.

    Raises:
        SampleError: a scale is invalid, or the model has no labels.
    """
    rows = {}
    for number, scale in enumerate(scales):
        images: Tensor = cascade.sample(n, guidance=scale, **dict(options or {}))
        rows[scale] = images
        if progress is not None:
            progress((number + 1) * n)
    return rows


def guidance_grid(rows: Mapping[float, Tensor], heads: Sequence[str] | None = None) -> Image.Image:
    """Draw the result of :func:`sample_guidance`.

    Args:
        rows: images [n, C, H, W] by guidance scale; floating in [-1, 1] or uint8.
        heads: text above each column.

    Returns:
        An RGB picture with the scale beside each row.

    Raises:
        InputError: no rows, rows of different lengths, or a different number of heads.
    """
    cells = {scale: to_pil(images) for scale, images in rows.items()}
    counts = {len(row) for row in cells.values()} | ({len(heads)} if heads is not None else set())
    if len(counts) != 1 or 0 in counts:
        raise InputError(
            f"rows and heads of a grid need one length, but have {sorted(counts)}",
            hint="sample the same number of images with each scale",
            code="input-grid-ragged",
        )
    (columns,) = counts
    name_font, note_font = fonts()
    cell = common_cell([max(image.size) for row in cells.values() for image in row[:1]])
    names = [f"{scale:g}" for scale in cells]
    title = "guidance"
    left = int(max(name_font.getlength(t) for t in (title, *names))) + GAP
    top = line_height(name_font) + (line_height(note_font) if heads is not None else 0) + PAD
    width = MARGIN * 2 + left + columns * (cell + PAD) - PAD
    height = MARGIN * 2 + top + len(cells) * (cell + PAD) - PAD
    sheet = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN), title, fill=INK, font=name_font)
    for column, head in enumerate(heads or ()):
        place = (MARGIN + left + column * (cell + PAD), MARGIN + line_height(name_font))
        pen.text(place, fit(head, note_font, cell), fill=NOTE, font=note_font)
    for row, (name, images) in enumerate(zip(names, cells.values(), strict=True)):
        down = MARGIN + top + row * (cell + PAD)
        middle = down + (cell - line_height(name_font)) // 2
        pen.text((MARGIN, middle), name, fill=INK, font=name_font)
        for column, image in enumerate(images):
            across = MARGIN + left + column * (cell + PAD)
            sheet.paste(enlarge(image, cell, cell), (across, down))
    return sheet
