"""``pixelshuffle.v1``: an upsampler that predicts what an interpolation lacks."""

from __future__ import annotations

from torch import nn

from cascadezoo.spec.configs import ImageShape
from cascadezoo.stages.pixelshuffle.config import PixelShuffleConfig
from cascadezoo.stages.pixelshuffle.network import PixelShuffleNetwork
from cascadezoo.stages.residual_stage import ResidualUpsampler

__all__ = ["PixelShuffleUpsampler"]


class PixelShuffleUpsampler(ResidualUpsampler):
    """Sub-pixel convolution (Shi et al. 2016) over an interpolation."""

    Config = PixelShuffleConfig
    config: PixelShuffleConfig

    def make_network(self, image: ImageShape) -> nn.Module:
        """The network of the config."""
        config = self.config
        return PixelShuffleNetwork(
            image.channels,
            factor=config.factor,
            hidden=config.hidden,
            blocks=config.blocks,
        )
