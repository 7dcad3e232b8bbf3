"""Brings the images of a dataset to the size and channels that a cascade makes."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cascadezoo.data.base import ImageData
from cascadezoo.data.memory import require_memory
from cascadezoo.errors import DataError

__all__ = ["Fit", "prepare", "require_labels"]

Fit = Literal["resize", "pad", "crop"]


def prepare(data: ImageData, *, size: int, channels: int, fit: Fit = "resize") -> ImageData:
    """Bring images to ``size`` and ``channels``.

    Args:
        data: uint8 [N, C, H, W] with C of 1 or 3. Not changed.
        size: the height and width to reach, in pixels.
        channels: 3 repeats a grey image; 1 weighs red, green and blue as ITU-R BT.601 does.
        fit: ``resize`` scales square images with Pillow's anti-aliased Lanczos filter, in whole
            numbers, so that all machines get the same bytes; ``pad`` puts zeros around smaller
            images, evenly; ``crop`` takes the middle of larger ones. Where an odd number of
            pixels is to be added or removed, the right and lower side get the greater part.

    Returns:
        uint8 [N, channels, size, size]. The very same object where nothing is to be done.

    Raises:
        DataError: the images do not fit that way, or have other than 1 or 3 channels.
        ResourceError: the result is larger than the memory of the machine.
    """
    images = data.images
    count, have, high, wide = images.shape
    if have == channels and high == wide == size:
        return data
    if have not in (1, 3) or channels not in (1, 3):
        raise DataError(
            f"{data.split} images have {have} channels, and {channels} are wanted; both must be "
            "1 or 3",
            hint="set data.channels to 1 or 3",
            code="data-channels",
            split=data.split,
            channels=have,
        )
    if fit not in get_args(Fit):
        raise DataError(
            f"there is no fit {fit!r}",
            hint=f"one of {', '.join(get_args(Fit))}",
            code="data-fit-unknown",
            name=fit,
        )
    _check_fit(data, size, fit)
    require_memory(
        count * channels * size * size,
        f"{count:,} images of {channels}x{size}x{size}",
        hint="lower data.size, or use fewer images",
    )
    if have > channels:
        images = _grey(images)
    if not high == wide == size:
        images = {"resize": _resize, "pad": _pad, "crop": _crop}[fit](images, size)
    if images.shape[1] < channels:
        images = np.repeat(images, channels, axis=1)
    return ImageData(np.ascontiguousarray(images), data.labels, data.split)


def require_labels(data: ImageData, num_classes: int) -> None:
    """Check that every image has a label below ``num_classes``.

    Raises:
        DataError: the data have no labels, or some that are out of range.
    """
    if data.labels is None:
        raise DataError(
            f"the {data.split} images have no labels, and {num_classes} classes are to be learnt",
            hint="set data.num_classes to 0 to train without labels",
            code="data-no-labels",
            split=data.split,
        )
    low, high = int(data.labels.min()), int(data.labels.max())
    if low < 0 or high >= num_classes:
        raise DataError(
            f"the {data.split} labels lie in [{low}, {high}], outside of {num_classes} classes",
            hint=f"set data.num_classes to {high + 1}"
            if low >= 0
            else "number the classes 0, 1, 2, and so on",
            code="data-labels-out-of-range",
            split=data.split,
            low=low,
            high=high,
        )


def _check_fit(data: ImageData, size: int, fit: Fit) -> None:
    high, wide = data.images.shape[2:]
    have = f"{data.split} images are {high}x{wide}"
    if fit == "resize" and high != wide:
        raise DataError(
            f"{have}, not square", hint="set data.fit to crop or pad", code="data-not-square"
        )
    if fit == "pad" and max(high, wide) > size:
        raise DataError(
            f"{have}, too large to be padded to {size}x{size}",
            hint="set data.fit to crop or resize",
            code="data-too-large-to-pad",
            size=size,
        )
    if fit == "crop" and min(high, wide) < size:
        raise DataError(
            f"{have}, too small to be cropped to {size}x{size}",
            hint="set data.fit to pad or resize",
            code="data-too-small-to-crop",
            size=size,
        )


def _grey(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    weights = np.array([299, 587, 114], dtype=np.uint32)
    grey = np.empty((len(images), 1, *images.shape[2:]), dtype=np.uint8)
    for start in range(0, len(images), 256):  # keeps the wide numbers few
        part = images[start : start + 256]
        grey[start : start + 256, 0] = (np.einsum("nchw,c->nhw", part, weights) + 500) // 1000
    return grey


def _resize(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    count, channels = images.shape[:2]
    out = np.empty((count, channels, size, size), dtype=np.uint8)
    for source, target in zip(images, out, strict=True):
        pixels = source[0] if channels == 1 else np.ascontiguousarray(source.transpose(1, 2, 0))
        scaled = Image.fromarray(pixels).resize((size, size), Image.Resampling.LANCZOS)
        target[:] = np.asarray(scaled) if channels == 1 else np.asarray(scaled).transpose(2, 0, 1)
    return out


def _pad(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    count, channels, high, wide = images.shape
    out = np.zeros((count, channels, size, size), dtype=np.uint8)
    top, left = (size - high) // 2, (size - wide) // 2
    out[:, :, top : top + high, left : left + wide] = images
    return out


def _crop(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    high, wide = images.shape[2:]
    top, left = (high - size) // 2, (wide - size) // 2
    return images[:, :, top : top + size, left : left + size]
