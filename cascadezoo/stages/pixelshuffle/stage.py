"""``pixelshuffle.v1``: an upsampler that predicts the residual to an interpolation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cascadezoo.nn.resnet import BottleneckBlock, zero
from cascadezoo.nn.sizes import factor_steps
from cascadezoo.nn.upsample import PixelShuffleUp
from cascadezoo.stages.base import StageGeometry
from cascadezoo.stages.pixelshuffle.config import PixelShuffleConfig
from cascadezoo.stages.residual_stage import ResidualUpsampler

__all__ = ["PixelShuffleUpsampler"]


class PixelShuffleNetwork(nn.Module):
    """Residual blocks at low resolution, then one sub-pixel convolution per prime factor.

    It works in channels_last. The last convolution starts at zero.

    Args:
        image: channels of the image.
        factor: the enlargement in each direction.
        hidden: width at low resolution; one eighth of it after the first enlargement.
        blocks: residual blocks at low resolution.
    """

    def __init__(self, image: int, *, factor: int, hidden: int = 256, blocks: int = 2) -> None:
        super().__init__()
        fine = max(hidden // 8, 1)
        first, *further = factor_steps(factor)
        self.stem = nn.Conv2d(image, hidden, 3, padding=1)
        self.blocks = nn.ModuleList(
            BottleneckBlock(hidden, max(hidden // 4, 1)) for _ in range(blocks)
        )
        self.up = nn.ModuleList([PixelShuffleUp(hidden, fine, first, kernel=1)])
        self.up.extend(PixelShuffleUp(fine, fine, step) for step in further)
        self.head = zero(nn.Conv2d(fine, image, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to the residual, [N, C, factor * H, factor * W]."""
        # The stem may return the other layout: a single channel is in both.
        h = self.stem(x.contiguous(memory_format=torch.channels_last))
        h = h.contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            h = block(h)
        for up in self.up:
            h = up(F.silu(h))
        out: Tensor = self.head(F.silu(h))
        return out


class PixelShuffleUpsampler(ResidualUpsampler):
    """Sub-pixel convolution (Shi et al. 2016) over an interpolation."""

    Config = PixelShuffleConfig
    config: PixelShuffleConfig

    def __init__(self, config: PixelShuffleConfig, geometry: StageGeometry) -> None:
        super().__init__(config, geometry)
        self.network = PixelShuffleNetwork(
            geometry.output.channels,
            factor=config.factor,
            hidden=config.hidden,
            blocks=config.blocks,
        )
