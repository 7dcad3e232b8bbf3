"""Peak signal-to-noise ratio."""

from __future__ import annotations

import torch
from torch import Tensor

from cascadezoo.errors import InputError

__all__ = ["psnr"]


def psnr(images: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image.

    Args:
        images: floating [N, C, H, W] in [-1, 1].
        truth: the images that they should be, of the same shape.

    Returns:
        float32 [N], in dB; infinite where an image is the truth itself.

    Raises:
        InputError: the shapes differ.

    >>> psnr(torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 0.2)).round().tolist()
    [20.0]
    """
    if images.shape != truth.shape:
        raise InputError(
            f"images of the shapes {tuple(images.shape)} and {tuple(truth.shape)} have no PSNR",
            hint="resize one of them first",
            code="input-images-unlike",
            shapes=(tuple(images.shape), tuple(truth.shape)),
        )
    error = (images.float() - truth.float()).square().flatten(1).mean(dim=1)
    return 10 * torch.log10(4 / error)
