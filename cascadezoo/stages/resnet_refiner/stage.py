"""``resnet-refiner.v1``: a refiner of residual blocks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cascadezoo.nn.resnet import Norm, ResidualBlock, zero
from cascadezoo.stages.base import StageGeometry
from cascadezoo.stages.residual_stage import ResidualRefiner
from cascadezoo.stages.resnet_refiner.config import ResNetRefinerConfig

__all__ = ["ResNetRefiner"]


class ResidualBlocks(nn.Module):
    """Residual blocks at the image's resolution, between two convolutions.

    It works in channels_last. The last convolution starts at zero.

    Args:
        image: channels of the image.
        hidden: width of the blocks.
        blocks: number of blocks.
        dropout: in every block.
    """

    def __init__(
        self, image: int, *, hidden: int = 64, blocks: int = 3, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(image, hidden, 3, padding=1)
        self.blocks = nn.ModuleList(
            ResidualBlock(hidden, hidden, dropout=dropout) for _ in range(blocks)
        )
        self.norm = Norm(hidden)
        self.head = zero(nn.Conv2d(hidden, image, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to the correction, of the same shape."""
        # The stem may return the other layout: a single channel is in both.
        h = self.stem(x.contiguous(memory_format=torch.channels_last))
        h = h.contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            h = block(h)
        out: Tensor = self.head(self.norm.activated(h))
        return out


class ResNetRefiner(ResidualRefiner):
    """Residual blocks (He et al. 2016), added to the upstream image."""

    Config = ResNetRefinerConfig
    config: ResNetRefinerConfig

    def __init__(self, config: ResNetRefinerConfig, geometry: StageGeometry) -> None:
        super().__init__(config, geometry)
        self.network = ResidualBlocks(
            geometry.output.channels,
            hidden=config.hidden,
            blocks=config.blocks,
            dropout=config.dropout,
        )
