"""A loaded dataset: uint8 arrays in memory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cascadezoo.errors import DataError

__all__ = ["ImageData", "Split"]

Split = Literal["train", "test"]


@dataclass(frozen=True)
class ImageData:
    """Images and labels.

    Args:
        images: uint8, [N, C, H, W].
        labels: int64, [N]; None for data without labels.
        split: the part of the dataset.

    Raises:
        DataError: the arrays have other types or shapes, or contain no images.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    split: Split

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        shape = tuple(images.shape)
        if images.dtype != np.uint8 or images.ndim != 4 or 0 in shape:
            raise DataError(
                f"{self.split} images are {images.dtype} {shape}, not uint8 [N, C, H, W]",
                code="data-images-form",
                dtype=str(images.dtype),
                shape=shape,
            )
        if labels is not None and (labels.dtype != np.int64 or labels.shape != shape[:1]):
            raise DataError(
                f"{self.split} labels are {labels.dtype} {tuple(labels.shape)}, not int64 "
                f"[{len(images)}], one for each image",
                code="data-labels-form",
                dtype=str(labels.dtype),
                shape=tuple(labels.shape),
            )

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def digest(self) -> str:
        """The sha256 of shape, images and labels. It identifies the data."""
        digest = hashlib.sha256(repr(self.images.shape).encode())
        arrays: list[NDArray[Any]] = [self.images]
        if self.labels is not None:
            arrays.append(self.labels)
        for array in arrays:
            digest.update(np.ascontiguousarray(array).data.cast("B"))
        return digest.hexdigest()
