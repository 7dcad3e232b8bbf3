"""Converts the images of a dataset to the size and channels of a cascade."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cascadezoo.data.base import ImageData
from cascadezoo.data.memory import require_data
from cascadezoo.errors import DataError

__all__ = ["Fit", "prepare", "require_labels"]

Fit = Literal["resize", "pad", "crop"]


def prepare(data: ImageData, *, size: int, channels: int, fit: Fit = "resize") -> ImageData:
    """Convert images to ``size`` and ``channels``.

    Args:
        data: uint8 [N, C, H, W] with C of 1 or 3. Not modified.
        size: the height and width of the result, in pixels.
        channels: 3 repeats a grey image; 1 weights red, green and blue by ITU-R BT.601.
        fit: ``resize`` scales square images with Pillow's anti-aliased Lanczos filter, in
            integers, so that all machines get the same bytes; ``pad`` adds zeros on all sides of
            smaller images; ``crop`` takes the middle of larger images. If the number of added or
            removed pixels is odd, the right and lower side get the larger part.

    Returns:
        uint8 [N, channels, size, size]. The same object if nothing changes.

    Raises:
        DataError: ``fit`` cannot convert the images, or their channels are not 1 or 3.
        ResourceError: the result is larger than the limit or the machine's memory.
    """
    images = data.images
    count, present, height, width = images.shape
    if present == channels and height == width == size:
        return data
    if present not in (1, 3) or channels not in (1, 3):
        raise DataError(
            f"{data.split} images have {present} channels, the cascade {channels}; both must be "
            "1 or 3",
            hint="set data.channels to 1 or 3",
            code="data-channels",
            split=data.split,
            channels=present,
        )
    if fit not in get_args(Fit):
        raise DataError(
            f"unknown fit {fit!r}",
            hint=f"use one of {', '.join(get_args(Fit))}",
            code="data-fit-unknown",
            name=fit,
        )
    _check_fit(data, size, fit)
    require_data(
        count * channels * size * size,
        f"{count:,} images of {channels}x{size}x{size}",
        hint="lower data.size, or use fewer images",
    )
    if present > channels:
        images = _grey(images)
    if not height == width == size:
        images = {"resize": _resize, "pad": _pad, "crop": _crop}[fit](images, size)
    if images.shape[1] < channels:
        images = np.repeat(images, channels, axis=1)
    return ImageData(np.ascontiguousarray(images), data.labels, data.split)


def require_labels(data: ImageData, num_classes: int) -> None:
    """Check that every image has a label below ``num_classes``.

    Raises:
        DataError: the data have no labels, or a label is out of range.
    """
    if data.labels is None:
        raise DataError(
            f"the {data.split} images have no labels, but the cascade has {num_classes} classes",
            hint="set data.num_classes to 0 to train without labels",
            code="data-no-labels",
            split=data.split,
        )
    low, high = int(data.labels.min()), int(data.labels.max())
    if low < 0 or high >= num_classes:
        raise DataError(
            f"the {data.split} labels are in [{low}, {high}], but there are {num_classes} classes",
            hint=f"set data.num_classes to {high + 1}"
            if low >= 0
            else "number the classes 0, 1, 2, and so on",
            code="data-labels-out-of-range",
            split=data.split,
            low=low,
            high=high,
        )


def _check_fit(data: ImageData, size: int, fit: Fit) -> None:
    height, width = data.images.shape[2:]
    actual = f"{data.split} images are {height}x{width}"
    if fit == "resize" and height != width:
        raise DataError(
            f"{actual}, not square", hint="set data.fit to crop or pad", code="data-not-square"
        )
    if fit == "pad" and max(height, width) > size:
        raise DataError(
            f"{actual}, too large to pad to {size}x{size}",
            hint="set data.fit to crop or resize",
            code="data-too-large-to-pad",
            size=size,
        )
    if fit == "crop" and min(height, width) < size:
        raise DataError(
            f"{actual}, too small to crop to {size}x{size}",
            hint="set data.fit to pad or resize",
            code="data-too-small-to-crop",
            size=size,
        )


def _grey(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    weights = np.array([299, 587, 114], dtype=np.uint32)
    grey = np.empty((len(images), 1, *images.shape[2:]), dtype=np.uint8)
    for start in range(0, len(images), 256):  # limits the memory of the 32-bit numbers
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
    count, channels, height, width = images.shape
    out = np.zeros((count, channels, size, size), dtype=np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    out[:, :, top : top + height, left : left + width] = images
    return out


def _crop(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    height, width = images.shape[2:]
    top, left = (height - size) // 2, (width - size) // 2
    return images[:, :, top : top + size, left : left + size]
