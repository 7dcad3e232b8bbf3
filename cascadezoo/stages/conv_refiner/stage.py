"""``conv-refiner.v1``: a refiner of plain convolutions."""

from __future__ import annotations

from torch import nn

from cascadezoo.spec.configs import ImageShape
from cascadezoo.stages.conv_refiner.config import ConvRefinerConfig
from cascadezoo.stages.conv_refiner.network import PlainConvolutions
from cascadezoo.stages.residual_stage import ResidualRefiner

__all__ = ["ConvRefiner"]


class ConvRefiner(ResidualRefiner):
    """Plain convolutions (Kim et al. 2016), added to the upstream image."""

    Config = ConvRefinerConfig
    config: ConvRefinerConfig

    def make_network(self, image: ImageShape) -> nn.Module:
        """The network of the config."""
        config = self.config
        return PlainConvolutions(
            image.channels,
            hidden=config.hidden,
            layers=config.layers,
            kernel=config.kernel,
        )
