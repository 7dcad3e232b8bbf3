"""Decodes the image files of a folder, in threads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray

from cascadezoo.data.image_decoder import decode_image, decode_share, square_size
from cascadezoo.data.memory import require_data
from cascadezoo.data.picture_files import bombs_are_errors
from cascadezoo.errors import DataError

__all__ = ["read_images"]

_BLOCK = 4096


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
    share = decode_share(workers)
    images = np.empty((len(files), channels, side, side), dtype=np.uint8)

    def read(number: int, most: int | None = None) -> bool:
        """Read one image; False if it takes more than ``most`` bytes."""
        path = root / files[number]
        image = decode_image(path, channels, resize, most)
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
