"""``pixelshuffle.v1``: an upsampler that predicts what an interpolation lacks."""

from __future__ import annotations

from torch import Tensor

from cascadezoo.nn.upsample import enlarge
from cascadezoo.stages.base import StageGeometry
from cascadezoo.stages.pixelshuffle.config import PixelShuffleConfig
from cascadezoo.stages.pixelshuffle.network import PixelShuffleNetwork
from cascadezoo.stages.residual_stage import ResidualStage

__all__ = ["PixelShuffleUpsampler"]


class PixelShuffleUpsampler(ResidualStage):
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

    def base(self, upstream: Tensor) -> Tensor:
        """The upstream image, interpolated to ``out_size``."""
        return enlarge(upstream, self.out_size, self.config.interpolation)

    def residual(self, upstream: Tensor) -> Tensor:
        """What the network adds."""
        residual: Tensor = self.network(upstream)
        return self.config.residual_scale * residual
