"""``resnet-upsampler.v1``: an upsampler of residual blocks and resize convolutions."""

from __future__ import annotations

from torch import Tensor

from cascadezoo.nn.upsample import enlarge
from cascadezoo.stages.base import StageGeometry
from cascadezoo.stages.residual_stage import ResidualStage
from cascadezoo.stages.resnet_upsampler.config import ResNetUpsamplerConfig
from cascadezoo.stages.resnet_upsampler.network import ResNetUpsamplerNetwork

__all__ = ["ResNetUpsampler"]


class ResNetUpsampler(ResidualStage):
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

    def base(self, upstream: Tensor) -> Tensor:
        """The upstream image, interpolated to ``out_size``."""
        return enlarge(upstream, self.out_size, self.config.interpolation)

    def residual(self, upstream: Tensor) -> Tensor:
        """What the network adds."""
        residual: Tensor = self.network(upstream)
        return self.config.residual_scale * residual
