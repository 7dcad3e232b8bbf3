"""Enlargement by sub-pixel convolution."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["PixelShuffleUp", "factor_steps", "icnr"]


def factor_steps(factor: int) -> list[int]:
    """The prime factors of an enlargement, rising: 8 is done as 2, 2, 2."""
    steps, rest, prime = [], factor, 2
    while rest > 1:
        while rest % prime == 0:
            steps.append(prime)
            rest //= prime
        prime += 1
    return steps


def icnr(layer: nn.Conv2d, factor: int) -> nn.Conv2d:
    """The layer, started so that a pixel shuffle by ``factor`` enlarges to the nearest pixel.

    Otherwise the pixels of a block start with unrelated kernels, which shows as a checkerboard
    (Aitken et al. 2017).
    """
    one_of_each = layer.weight.data[:: factor**2]
    layer.weight.data.copy_(one_of_each.repeat_interleave(factor**2, dim=0))
    if layer.bias is not None:
        layer.bias.data.copy_(layer.bias.data[:: factor**2].repeat_interleave(factor**2))
    return layer


class PixelShuffleUp(nn.Module):
    """A convolution whose output channels are laid out as pixels (Shi et al. 2016).

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        factor: how many times larger.
        kernel: size of the convolution, odd.
    """

    def __init__(self, inputs: int, outputs: int, factor: int, kernel: int = 3) -> None:
        super().__init__()
        self.factor = factor
        conv = nn.Conv2d(inputs, outputs * factor**2, kernel, padding=kernel // 2)
        self.conv = icnr(conv, factor)

    def forward(self, x: Tensor) -> Tensor:
        """From [N, inputs, H, W] to [N, outputs, factor * H, factor * W]."""
        return F.pixel_shuffle(self.conv(x), self.factor)
