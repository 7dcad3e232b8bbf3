"""``resnet-refiner.v1``: a refiner of residual blocks."""

from __future__ import annotations

from torch import Tensor

from cascadezoo.stages.base import StageGeometry
from cascadezoo.stages.residual_stage import ResidualStage
from cascadezoo.stages.resnet_refiner.config import ResNetRefinerConfig
from cascadezoo.stages.resnet_refiner.network import ResidualBlocks

__all__ = ["ResNetRefiner"]


class ResNetRefiner(ResidualStage):
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

    def base(self, upstream: Tensor) -> Tensor:
        """The upstream image as it is."""
        return upstream

    def residual(self, upstream: Tensor) -> Tensor:
        """What the network adds."""
        correction: Tensor = self.network(upstream)
        return self.config.residual_scale * correction
