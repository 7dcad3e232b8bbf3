"""Decodes image files into square uint8 arrays, in threads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from cascadezoo.data.memory import physical_memory, require_data
from cascadezoo.data.picture_files import bombs_are_errors, opened_picture
from cascadezoo.errors import DataError

__all__ = ["read_images", "square_size"]

_BLOCK = 4096
_IN_FLIGHT = 512 << 20
"""Bytes that all threads together may decode at the same time, on a small machine."""

# Pillow stores a pixel of most modes in 4 bytes. At the peak there are two images (before and
# after a conversion) or an image and two arrays.
_BYTES_PER_PIXEL = 12


def square_size(path: Path) -> int:
    """The side of an image's centre square in pixels, from its header.

    Raises:
        DataError: the file is not a readable image, or is too large.
    """
    with bombs_are_errors(), opened_picture(path) as image:
        return min(image.size)


def read_images(
    root: Path, files: Sequence[PurePath], *, channels: int, resize: int | None
) -> NDArray[np.uint8]:
    """Decode images.

    Args:
        root: the folder of the images.
        files: their paths relative to the folder; at least one.
        channels: 1 for grey, 3 for RGB.
        resize: the side of the results; None requires that all have the size of the first.

    Returns:
        uint8 [N, channels, side, side].

    Raises:
        DataError: a file is damaged, not an image, too large, or has another size than the first.
        ResourceError: the images are larger than the limit or the machine's memory.
    """
    side = resize or square_size(root / files[0])
    require_data(
        len(files) * channels * side**2,
        f"{root}: {len(files):,} images of {side}x{side}",
        hint="set data.config.resize to a smaller size",
    )
    workers = min(32, os.cpu_count() or 1)
    # A thread keeps the memory of its largest image, so the threads share a fixed amount.
    share = max(_IN_FLIGHT, (physical_memory() or 0) // 8) // workers
    images = np.empty((len(files), channels, side, side), dtype=np.uint8)

    def read(number: int, most: int | None = None) -> bool:
        """Read one image; False if it takes more than ``most`` bytes."""
        path = root / files[number]
        image = _decode(path, channels, resize, most)
        if image is None:
            return False
        if image.shape != images.shape[1:]:
            raise DataError(
                f"images have different sizes: {path} is {_side(image)} after cropping, "
                f"{root / files[0]} is {side}x{side}",
                hint=f"set data.config.resize, e.g. to {min(side, image.shape[-1])}",
                code="data-sizes-differ",
                path=path,
            )
        images[number] = image
        return True

    with bombs_are_errors(), ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(files), _BLOCK):
            block = range(start, min(start + _BLOCK, len(files)))
            # Raises the first failure in the order of the files and cancels the rest.
            for number, done in zip(block, pool.map(partial(read, most=share), block), strict=True):
                if not done:
                    read(number)
    return images


def _side(image: NDArray[np.uint8]) -> str:
    return f"{image.shape[-1]}x{image.shape[-1]}"


def _decode(
    path: Path, channels: int, resize: int | None, most: int | None = None
) -> NDArray[np.uint8] | None:
    """One image, uint8 [channels, side, side]; None if it takes more than ``most`` bytes."""
    mode = "L" if channels == 1 else "RGB"
    with opened_picture(path) as image:
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
