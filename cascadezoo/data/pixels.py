"""Conversion between images as bytes and as floats in [-1, 1]."""

from __future__ import annotations

import torch
from torch import Tensor

from cascadezoo.errors import InputError

__all__ = ["check_images", "to_float", "to_uint8"]


def check_images(images: Tensor) -> None:
    """Check a batch of images.

    Args:
        images: any tensor.

    Raises:
        InputError: not uint8 or floating [N, C, H, W] with 1 or 3 channels and at least one pixel,
            or NaN or infinite values.
    """
    shape = tuple(images.shape)
    if images.dim() != 4 or shape[1] not in (1, 3) or 0 in shape[2:]:
        raise InputError(
            f"images have the shape {shape}, not [N, C, H, W] with 1 or 3 channels",
            hint="use image[None] for a single image, images.permute(0, 3, 1, 2) for channels last",
            code="input-images-shape",
            shape=shape,
        )
    if images.dtype == torch.uint8:
        return
    if not images.is_floating_point():
        raise InputError(
            f"images are {images.dtype}, neither uint8 nor floating",
            hint="pass bytes in [0, 255] as uint8, or floats in [-1, 1]",
            code="input-images-dtype",
            dtype=str(images.dtype),
        )
    bad = ~torch.isfinite(images).flatten(1).all(dim=1)
    if bool(bad.any()):
        rows = bad.nonzero().flatten().tolist()
        listed = ", ".join(str(row) for row in rows[:5]) + (", ..." if len(rows) > 5 else "")
        raise InputError(
            f"{len(rows)} of {len(images)} images contain NaN or infinite values (number {listed})",
            hint="the model diverged: lower its learning rate, clip gradients, "
            'or train with "precision": "fp32"',
            code="input-images-not-finite",
            count=len(rows),
            total=len(images),
        )


def to_uint8(images: Tensor) -> Tensor:
    """Convert images to bytes.

    Args:
        images: floating [N, C, H, W], clipped to [-1, 1]; uint8 is returned unchanged.

    Returns:
        uint8 [N, C, H, W], on the same device; -1 is 0 and 1 is 255, rounded to the nearest.

    Raises:
        InputError: see :func:`check_images`.
    """
    check_images(images)
    if images.dtype == torch.uint8:
        return images
    scaled = (images.detach().float().clamp(-1, 1) + 1) * 127.5
    return scaled.round_().to(torch.uint8)


def to_float(images: Tensor) -> Tensor:
    """Convert images to floats.

    Args:
        images: uint8 [N, C, H, W]; floating images are returned unchanged.

    Returns:
        float32 [N, C, H, W] in [-1, 1]; :func:`to_uint8` restores the same bytes.
    """
    return images.float().div_(127.5).sub_(1) if images.dtype == torch.uint8 else images
