"""``resnet-upsampler.v1``: an upsampler of residual blocks and resize convolutions."""

from __future__ import annotations

from torch import nn

from cascadezoo.spec.configs import ImageShape
from cascadezoo.stages.residual_stage import ResidualUpsampler
from cascadezoo.stages.resnet_upsampler.config import ResNetUpsamplerConfig
from cascadezoo.stages.resnet_upsampler.network import ResNetUpsamplerNetwork

__all__ = ["ResNetUpsampler"]


class ResNetUpsampler(ResidualUpsampler):
    """Residual blocks and resize convolutions (Odena et al. 2016) over an interpolation."""

    Config = ResNetUpsamplerConfig
    config: ResNetUpsamplerConfig

    def make_network(self, image: ImageShape) -> nn.Module:
        """The network of the config."""
        config = self.config
        return ResNetUpsamplerNetwork(
            image.channels,
            factor=config.factor,
            hidden=config.hidden,
            blocks=config.blocks,
            fine_blocks=config.fine_blocks,
            dropout=config.dropout,
        )
