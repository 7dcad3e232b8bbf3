"""Residual blocks of U-Nets and upsamplers."""

from __future__ import annotations

from functools import cache
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad

from cascadezoo.nn.sizes import divisor_near

__all__ = ["BottleneckBlock", "Norm", "ResidualBlock", "has_tangent", "zero"]

L = TypeVar("L", nn.Conv2d, nn.Linear)

LARGEST_GROUP = 32_768
"""Maximum number of elements of a group of one image for the fused kernel's registers."""


@cache
def _has_triton() -> bool:
    from torch.utils._triton import has_triton

    return has_triton()


def has_tangent(x: Tensor) -> bool:
    """Whether a tensor carries a derivative of forward-mode differentiation.

    Fused kernels do not support it; the operations that they are composed of do. Compiled code
    never runs in this mode.
    """
    if torch.compiler.is_compiling():
        return False
    _, tangent = forward_ad.unpack_dual(x)  # type: ignore[no-untyped-call]
    return tangent is not None


class Norm(nn.GroupNorm):
    """Group normalisation in float32 with a number of groups that divides the channels.

    At most 32 groups (Wu & He 2018) of at least 4 channels if the width allows it. Under autocast
    the input is converted to float32: the statistics need it, and PyTorch's bfloat16 kernel
    for channels_last is several times slower on CPUs.

    Args:
        channels: of the input.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(divisor_near(channels, max(1, min(32, channels // 4))), channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to the same shape in float32."""
        return F.group_norm(x.float(), self.num_groups, self.weight, self.bias, self.eps)

    def activated(self, x: Tensor, modulation: Tensor | None = None) -> Tensor:
        """``silu(norm(x) * (1 + scale) + shift)``, in one kernel on GPUs with Triton.

        Args:
            x: [N, C, H, W].
            modulation: scale, then shift, [N, 2 C]; None for no modulation.

        Returns:
            [N, C, H, W]; float32, or of the autocast type from the fused kernel.
        """
        if self._fuses(x):
            from cascadezoo.nn.fused_norm import fused_norm_silu

            return fused_norm_silu(x, self.weight, self.bias, modulation, self.num_groups, self.eps)
        normal = self(x)
        if modulation is not None:
            scale, shift = modulation[:, :, None, None].chunk(2, dim=1)
            normal = normal * (1 + scale) + shift
        return F.silu(normal)

    def _fuses(self, x: Tensor) -> bool:
        if not x.is_cuda or torch.compiler.is_compiling() or has_tangent(x):
            return False
        group = x.shape[2:].numel() * (self.num_channels // self.num_groups)
        return group <= LARGEST_GROUP and _has_triton()


class ResidualBlock(nn.Module):
    """Twice norm, SiLU, 3x3 convolution, added to the input (He et al. 2016; Ho et al. 2020).

    The last convolution starts at zero, so a new block is the identity (or its skip layer).

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        time: width of the time embedding; None for a block without time.
        scale_shift: the time embedding scales and shifts the second norm (Dhariwal & Nichol 2021),
            which learns faster; otherwise it is added before that norm (Ho et al. 2020).
        dropout: before the last convolution.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        time: int | None = None,
        scale_shift: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.scale_shift = scale_shift
        self.norm1 = Norm(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        modulation = 2 * outputs if scale_shift else outputs
        self.time = nn.Linear(time, modulation) if time is not None else None
        self.norm2 = Norm(outputs)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.conv2 = zero(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """Map [N, inputs, H, W] and an activated embedding [N, time] to [N, outputs, H, W]."""
        h = self.conv1(self.norm1.activated(x))
        if self.time is None or time is None:
            h = self.norm2.activated(h)
        elif self.scale_shift:
            h = self.norm2.activated(h, self.time(time))
        else:
            h = self.norm2.activated(h + self.time(time)[:, :, None, None])
        out: Tensor = self.skip(x) + self.conv2(self.dropout(h))
        return out


class BottleneckBlock(nn.Module):
    """A narrow 3x3 convolution between two 1x1 convolutions, added to the input (He et al. 2016).

    It has a tenth of the cost of two 3x3 convolutions at full width. For CIFAR-10 from 16 to 32
    pixels it is better in the same training time. The last layer starts at zero.

    Args:
        channels: of input and output.
        inner: channels of the 3x3 convolution.
    """

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.norm1 = Norm(channels)
        self.narrow = nn.Conv2d(channels, inner, 1)
        self.norm2 = Norm(inner)
        self.conv = nn.Conv2d(inner, inner, 3, padding=1)
        self.widen = zero(nn.Conv2d(inner, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, channels, H, W] to the same shape."""
        h = self.narrow(self.norm1.activated(x))
        h = self.conv(self.norm2.activated(h))
        out: Tensor = x + self.widen(F.silu(h))
        return out


def zero(layer: L) -> L:
    """Set the weights and bias of a layer to zero and return it."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
