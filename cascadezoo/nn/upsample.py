"""Enlargement by interpolation, sub-pixel, resize and transposed convolutions."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["PixelShuffleUp", "ResizeUp", "TransposedUp", "enlarge", "icnr"]


def enlarge(images: Tensor, size: int | tuple[int, int], mode: str) -> Tensor:
    """Interpolate images [N, C, H, W] to another height and width.

    Args:
        images: any values; bicubic interpolation may exceed their range.
        size: height and width of the result in pixels, or one number for both.
        mode: ``bicubic``, ``bilinear`` or ``nearest``.
    """
    corners = None if mode == "nearest" else False
    shape = (size, size) if isinstance(size, int) else size
    return F.interpolate(images, size=shape, mode=mode, align_corners=corners)


def icnr(layer: nn.Conv2d, factor: int) -> nn.Conv2d:
    """Initialise a layer so that a pixel shuffle by ``factor`` is nearest-neighbour enlargement.

    Otherwise the pixels of a block start with unrelated kernels, which shows as a checkerboard
    (Aitken et al. 2017).
    """
    one_of_each = layer.weight.data[:: factor**2]
    layer.weight.data.copy_(one_of_each.repeat_interleave(factor**2, dim=0))
    if layer.bias is not None:
        layer.bias.data.copy_(layer.bias.data[:: factor**2].repeat_interleave(factor**2))
    return layer


class PixelShuffleUp(nn.Module):
    """A convolution whose output channels become pixels (Shi et al. 2016).

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        factor: the enlargement in each direction.
        kernel: size of the convolution, odd.
    """

    def __init__(self, inputs: int, outputs: int, factor: int, kernel: int = 3) -> None:
        super().__init__()
        self.factor = factor
        conv = nn.Conv2d(inputs, outputs * factor**2, kernel, padding=kernel // 2)
        self.conv = icnr(conv, factor)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, inputs, H, W] to [N, outputs, factor * H, factor * W]."""
        return F.pixel_shuffle(self.conv(x), self.factor)


class ResizeUp(nn.Module):
    """Nearest-neighbour interpolation, then a 3x3 convolution (Odena et al. 2016).

    Every pixel of the result is a sum of the same number of products, so unlike a transposed
    convolution it has no built-in checkerboard.

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        factor: the enlargement in each direction.
    """

    def __init__(self, inputs: int, outputs: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, inputs, H, W] to [N, outputs, factor * H, factor * W]."""
        grown: Tensor = self.conv(F.interpolate(x, scale_factor=float(self.factor), mode="nearest"))
        return grown


class TransposedUp(nn.ConvTranspose2d):
    """A transposed convolution with the factor as its stride (Zeiler et al. 2010).

    If the factor does not divide the kernel, the copies of the kernel overlap unevenly, and
    neighbouring pixels are sums of different numbers of products: a checkerboard (Odena et al.
    2016). It maps [N, inputs, H, W] to [N, outputs, factor * H, factor * W].

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        factor: the enlargement in each direction.
        kernel: height and width of the kernel, at least ``factor``.

    Raises:
        ValueError: the kernel leaves gaps between its copies.
    """

    def __init__(self, inputs: int, outputs: int, factor: int, kernel: int) -> None:
        if kernel < factor:
            raise ValueError(f"a kernel of {kernel} leaves gaps at a stride of {factor}")
        odd = (kernel - factor) % 2
        padding = (kernel - factor + odd) // 2
        super().__init__(
            inputs, outputs, kernel, stride=factor, padding=padding, output_padding=odd
        )
