"""Pictures of image tensors: grids of samples, and strips of a cascade stage by stage."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from cascadezoo.data.pictures import to_pil
from cascadezoo.data.pixels import to_uint8
from cascadezoo.errors import InputError

__all__ = ["cut_samples", "grid", "samples_picture", "stage_strip", "to_pil", "to_uint8"]

CELL = 96
"""Approximate default width of an image in pixels."""

_LARGEST_CELL = 512
PAD = 2
GAP = 10
MARGIN = 12
_WIDEST_NAME = 120
_NAME_SIZE = 14
_NOTE_SIZE = 12
PAPER = (236, 236, 236)
INK = (32, 32, 32)
NOTE = (110, 110, 110)

_Font = ImageFont.ImageFont | ImageFont.FreeTypeFont


def grid(
    images: Tensor,
    columns: int | None = None,
    scale: int | None = None,
    pad: int = 2,
    *,
    names: Sequence[str] | None = None,
) -> Image.Image:
    """Draw images side by side on light grey, with each pixel enlarged to a square.

    Args:
        images: floating [N, C, H, W] in [-1, 1], or uint8; N at least 1.
        columns: images in a row; None makes the grid about square.
        scale: width of each drawn pixel; None enlarges small images to about 96 pixels and keeps
            large ones.
        pad: pixels between and around the images.
        names: captions below the images, such as their classes; None leaves them out.

    Returns:
        An RGB picture, ``columns * (W * scale + pad) + pad`` wide and
        ``rows * (H * scale + pad) + pad`` high, with a line of text more in each row if it has
        captions.

    Raises:
        InputError: no images, another number of captions than images, or a number below its
            minimum.
    """
    cells = to_pil(images)
    if not cells:
        raise InputError(
            "no images to draw", hint="pass at least one image", code="input-no-images"
        )
    columns = math.ceil(math.sqrt(len(cells))) if columns is None else columns
    width, height = cells[0].size
    scale = max(1, CELL // max(width, height)) if scale is None else scale
    if columns < 1 or scale < 1 or pad < 0:
        raise InputError(
            f"a grid of {columns} columns, scale {scale} and padding {pad} cannot be drawn",
            hint="use columns and scale of at least 1 and padding of at least 0",
            code="input-grid-invalid",
        )
    if names is not None and len(names) != len(cells):
        raise InputError(
            f"{len(names)} captions do not match {len(cells)} images",
            hint="give one caption for each image",
            code="input-grid-names",
            names=len(names),
            images=len(cells),
        )
    columns = min(columns, len(cells))
    width, height = width * scale, height * scale
    rows = math.ceil(len(cells) / columns)
    _, font = fonts()
    line = 0 if names is None else line_height(font)
    size = (columns * (width + pad) + pad, rows * (height + line + pad) + pad)
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, cell in enumerate(cells):
        row, column = divmod(number, columns)
        left, top = pad + column * (width + pad), pad + row * (height + line + pad)
        sheet.paste(enlarge(cell, width, height), (left, top))
        if names is not None:
            caption = fit(names[number], font, width)
            place = (left + (width - font.getlength(caption)) / 2, top + height)
            pen.text(place, caption, fill=INK, font=font)
    return sheet


def stage_strip(
    stages: Mapping[str, Tensor], *, margin: int = MARGIN, names: Sequence[str] | None = None
) -> Image.Image:
    """Draw samples stage by stage: one row per sample, one column per stage, coarse to fine.

    Args:
        stages: the images of each stage by name, in the order of the cascade; floating
            [N, C, H, W] in [-1, 1] or uint8, with equal N; sizes and channels may differ.
        margin: pixels around the strip.
        names: the names of the rows, such as the classes of the samples; None leaves them out.

    Returns:
        An RGB picture; all images are drawn at one size, with the stage's name and size above, and
        the row's name on the left.

    Raises:
        InputError: no stages, or different numbers of images or of names.
    """
    columns = {name: to_pil(images) for name, images in stages.items()}
    counts = {name: len(column) for name, column in columns.items()}
    if not counts or len(set(counts.values())) > 1 or 0 in counts.values():
        raise InputError(
            f"a strip needs an equal number of images of every stage, but got {counts or 'none'}",
            hint="pass the result of sample(..., return_stages=True)",
            code="input-strip-ragged",
            counts=counts,
        )
    rows = next(iter(counts.values()))
    if names is not None and len(names) != rows:
        raise InputError(
            f"{len(names)} names do not match {rows} rows",
            hint="give one name for each sample",
            code="input-strip-names",
            names=len(names),
            rows=rows,
        )
    sizes = {name: column[0].size for name, column in columns.items()}
    cell = common_cell([max(size) for size in sizes.values()])
    head = _head_height()
    side = 0 if names is None else _names_width(names)
    width = side + len(columns) * (cell + GAP) - GAP + 2 * margin
    height = head + rows * (cell + PAD) - PAD + 2 * margin
    sheet = Image.new("RGB", (width, height), PAPER)
    for row, text in enumerate(names or ()):
        _write_row(sheet, margin, margin + head + row * (cell + PAD), cell, text)
    for number, name in enumerate(columns):
        left = margin + side + number * (cell + GAP)
        _write_head(sheet, left, margin, cell, name, "{}x{}".format(*sizes[name]))
        for row, image in enumerate(columns[name]):
            top = margin + head + row * (cell + PAD)
            sheet.paste(enlarge(image, cell, cell), (left, top))
    return sheet


def samples_picture(
    samples: Tensor, stages: Mapping[str, Tensor] | None = None, *, columns: int | None = None
) -> Image.Image:
    """Draw the picture of a metric card: a grid of samples, and some of them stage by stage.

    Args:
        samples: floating [N, C, H, W] in [-1, 1], or uint8; N at least 1.
        stages: see :func:`stage_strip`; None or a single stage draws only the grid.
        columns: images in a row of the grid.

    Returns:
        An RGB picture. The strip shows as many samples as fit beside the grid, at least one.

    Raises:
        InputError: no samples, or stages with different numbers of images.
    """
    # Without the outer padding, so that the rows of grid and strip align.
    sheet = grid(samples, columns, pad=PAD)
    sheet = sheet.crop((PAD, PAD, sheet.width - PAD, sheet.height - PAD))
    head = _head_height()
    left = Image.new("RGB", (max(sheet.width, CELL), head + sheet.height), PAPER)
    height, width = samples.shape[2:]
    title = f"{len(samples)} sample{'' if len(samples) == 1 else 's'}"
    _write_head(left, 0, 0, left.width, title, f"{width}x{height}")
    left.paste(sheet, (0, head))
    parts = [left]
    if stages is not None and len(stages) > 1:
        cell = common_cell([max(images.shape[2:]) for images in stages.values()])
        rows = max(1, (sheet.height + PAD) // (cell + PAD))
        shown = {name: images[:rows] for name, images in stages.items()}
        parts.append(stage_strip(shown, margin=0))
    size = (
        sum(part.width for part in parts) + (len(parts) - 1) * 3 * GAP + 2 * MARGIN,
        max(part.height for part in parts) + 2 * MARGIN,
    )
    whole = Image.new("RGB", size, PAPER)
    across = MARGIN
    for part in parts:
        whole.paste(part, (across, MARGIN))
        across += part.width + 3 * GAP
    return whole


def cut_samples(picture: Image.Image, size: int, count: int) -> list[Image.Image] | None:
    """Recover the first samples from a picture of :func:`samples_picture`.

    Args:
        picture: a picture of :func:`samples_picture` with the default number of columns.
        size: height and width of the samples in pixels.
        count: largest number of samples to return.

    Returns:
        RGB pictures of ``size`` x ``size``; None if the picture has another form.
    """
    cell = size * max(1, CELL // size)
    image = picture.convert("RGB")
    top, samples = MARGIN + _head_height(), []
    columns = 0
    while _is_cell(image, MARGIN + columns * (cell + PAD), top, cell):
        columns += 1
    for number in range(min(count, columns * columns)):
        row, column = divmod(number, columns)
        left, upper = MARGIN + column * (cell + PAD), top + row * (cell + PAD)
        if not _is_cell(image, left, upper, cell):
            break
        cut = image.crop((left, upper, left + cell, upper + cell))
        samples.append(cut.resize((size, size), Image.Resampling.NEAREST))
    return samples or None


def _is_cell(image: Image.Image, left: int, top: int, cell: int) -> bool:
    """Whether the picture has a cell with background around it."""
    if left + cell + PAD > image.width or top + cell + PAD > image.height:
        return False
    around = (
        (left - PAD, top, left, top + cell),
        (left + cell, top, left + cell + PAD, top + cell),
        (left, top + cell, left + cell, top + cell + PAD),
    )
    paper = ((PAPER[0], PAPER[0]),) * 3
    inside = image.crop((left, top, left + cell, top + cell))
    return inside.getextrema() != paper and all(
        image.crop(box).getextrema() == paper for box in around
    )


def common_cell(sizes: list[int]) -> int:
    """The width to draw images of several sizes at, so that every pixel becomes a square."""
    common = math.lcm(*sizes)
    if common > _LARGEST_CELL:
        return max(*sizes, CELL)
    return common * max(1, CELL // common)


def enlarge(image: Image.Image, width: int, height: int) -> Image.Image:
    """Resize an image with square pixels and convert it to RGB."""
    return image.convert("RGB").resize((width, height), Image.Resampling.NEAREST)


def fonts() -> tuple[_Font, _Font]:
    """The fonts of names and of notes."""
    return ImageFont.load_default(_NAME_SIZE), ImageFont.load_default(_NOTE_SIZE)


def line_height(font: _Font) -> int:
    """The height of a line in pixels."""
    return math.ceil(font.getbbox("Ag|")[3]) + 3


def _head_height() -> int:
    return sum(line_height(font) for font in fonts()) + 4


def _write_head(sheet: Image.Image, left: int, top: int, width: int, name: str, note: str) -> None:
    """Write a name and a fainter note above a column."""
    name_font, note_font = fonts()
    pen = ImageDraw.Draw(sheet)
    pen.text((left, top), fit(name, name_font, width), fill=INK, font=name_font)
    below = top + line_height(name_font)
    pen.text((left, below), fit(note, note_font, width), fill=NOTE, font=note_font)


def _names_width(names: Sequence[str]) -> int:
    font, _ = fonts()
    longest = max((math.ceil(font.getlength(name)) for name in names), default=0)
    return min(longest, _WIDEST_NAME) + GAP


def _write_row(sheet: Image.Image, left: int, top: int, height: int, name: str) -> None:
    """Write a name beside a row, in the middle of its height."""
    font, _ = fonts()
    place = (left, top + (height - line_height(font)) // 2)
    text = fit(name, font, _WIDEST_NAME)
    ImageDraw.Draw(sheet).text(place, text, fill=INK, font=font)


def fit(text: str, font: _Font, width: int) -> str:
    """Shorten a text to at most ``width`` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
