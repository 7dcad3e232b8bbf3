"""``resnet-upsampler.v1``: an upsampler of residual blocks and resize convolutions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cascadezoo.nn.resnet import Norm, ResidualBlock, zero
from cascadezoo.nn.sizes import factor_steps
from cascadezoo.nn.upsample import ResizeUp
from cascadezoo.stages.base import StageGeometry
from cascadezoo.stages.residual_stage import ResidualUpsampler
from cascadezoo.stages.resnet_upsampler.config import ResNetUpsamplerConfig

__all__ = ["ResNetUpsampler"]


class ResNetUpsamplerNetwork(nn.Module):
    """Residual blocks, one resize convolution per prime factor, residual blocks again.

    It works in channels_last. The last convolution starts at zero.

    Args:
        image: channels of the image.
        factor: the enlargement in each direction.
        hidden: width at low resolution; half of it after the first enlargement.
        blocks: residual blocks at low resolution.
        fine_blocks: residual blocks at high resolution.
        dropout: in every residual block.
    """

    def __init__(
        self,
        image: int,
        *,
        factor: int,
        hidden: int = 64,
        blocks: int = 2,
        fine_blocks: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        fine = max(hidden // 2, 1)
        first, *further = factor_steps(factor)
        self.stem = nn.Conv2d(image, hidden, 3, padding=1)
        self.blocks = nn.ModuleList(
            ResidualBlock(hidden, hidden, dropout=dropout) for _ in range(blocks)
        )
        self.up = nn.ModuleList([ResizeUp(hidden, fine, first)])
        self.up.extend(ResizeUp(fine, fine, step) for step in further)
        self.fine_blocks = nn.ModuleList(
            ResidualBlock(fine, fine, dropout=dropout) for _ in range(fine_blocks)
        )
        self.norm = Norm(fine)
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
        for block in self.fine_blocks:
            h = block(h)
        out: Tensor = self.head(self.norm.activated(h))
        return out


class ResNetUpsampler(ResidualUpsampler):
    """Residual blocks and resize convolutions (Odena et al. 2016) over an interpolation."""

    Config = ResNetUpsamplerConfig
    config: ResNetUpsamplerConfig

    def __init__(self, config: ResNetUpsamplerConfig, geometry: StageGeometry) -> None:
        super().__init__(config, geometry)
        self.network = ResNetUpsamplerNetwork(
            geometry.output.channels,
            factor=config.factor,
            hidden=config.hidden,
            blocks=config.blocks,
            fine_blocks=config.fine_blocks,
            dropout=config.dropout,
        )
