"""Decodes an image file, or its bytes, into a square uint8 array, within limits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from cascadezoo.data.memory import physical_memory
from cascadezoo.data.picture_files import bombs_are_errors, opened_picture

__all__ = ["decode_image", "decode_share", "square_size"]

_IN_FLIGHT = 512 << 20
"""Bytes that all threads together may decode at the same time, on a small machine."""

# Pillow stores a pixel of most modes in 4 bytes. At the peak there are two images (before and
# after a conversion) or an image and two arrays.
_BYTES_PER_PIXEL = 12


def square_size(source: Path | bytes, name: object = None) -> int:
    """The side of an image's centre square in pixels, from its header.

    Args:
        source: the file, or its bytes.
        name: the image in messages; None is the file.

    Raises:
        DataError: it is not a readable image, or is too large.
    """
    with bombs_are_errors(), opened_picture(source, name) as image:
        return min(image.size)


def decode_share(workers: int) -> int:
    """Bytes that each of ``workers`` may decode at once; all share a fixed amount."""
    return max(_IN_FLIGHT, (physical_memory() or 0) // 8) // workers


def decode_image(
    source: Path | bytes,
    channels: int,
    resize: int | None,
    most: int | None = None,
    *,
    name: object = None,
) -> NDArray[np.uint8] | None:
    """Decode one image; call it under :func:`~cascadezoo.data.picture_files.bombs_are_errors`.

    Args:
        source: the file, or its bytes.
        channels: 1 for grey, 3 for RGB.
        resize: the side of the result; None keeps that of the centre square.
        most: bytes that the decoder may take; None is no limit.
        name: the image in messages; None is the file.

    Returns:
        uint8 [channels, side, side]; None if it takes more than ``most`` bytes.

    Raises:
        DataError: it is not a readable image, or is too large.
    """
    mode = "L" if channels == 1 else "RGB"
    with opened_picture(source, name) as image:
        if resize is not None:
            # JPEG can be decoded at 1/2, 1/4, 1/8; twice the final size loses nothing visible.
            image.draft(mode, (2 * resize, 2 * resize))
        area = image.width * image.height + (resize or 0) ** 2
        if most is not None and _BYTES_PER_PIXEL * area > most:
            return None
        pixels = np.asarray(_square(image, mode, resize))
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _square(image: Image.Image, mode: str, resize: int | None) -> Image.Image:
    """The upright centre square. The image and each former step are released early."""
    ImageOps.exif_transpose(image, in_place=True)
    side = min(image.size)
    square: Image.Image = image
    if image.width != image.height:
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.crop((left, top, left + side, top + side))
        image.close()
    if square.has_transparency_data:
        square = square.convert("RGBA")
        image.close()
        square = Image.alpha_composite(Image.new("RGBA", square.size, "white"), square)
    if square.mode != mode:
        square = square.convert(mode)
        image.close()
    if resize is not None and side != resize:
        square = square.resize((resize, resize), Image.Resampling.LANCZOS)
    return square
