"""``resnet-refiner.v1``: a refiner of residual blocks."""

from __future__ import annotations

from torch import nn

from cascadezoo.spec.configs import ImageShape
from cascadezoo.stages.residual_stage import ResidualRefiner
from cascadezoo.stages.resnet_refiner.config import ResNetRefinerConfig
from cascadezoo.stages.resnet_refiner.network import ResidualBlocks

__all__ = ["ResNetRefiner"]


class ResNetRefiner(ResidualRefiner):
    """Residual blocks (He et al. 2016), added to the upstream image."""

    Config = ResNetRefinerConfig
    config: ResNetRefinerConfig

    def make_network(self, image: ImageShape) -> nn.Module:
        """The network of the config."""
        config = self.config
        return ResidualBlocks(
            image.channels,
            hidden=config.hidden,
            blocks=config.blocks,
            dropout=config.dropout,
        )
