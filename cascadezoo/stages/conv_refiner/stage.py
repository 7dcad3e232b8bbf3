"""``conv-refiner.v1``: a refiner of plain convolutions."""

from __future__ import annotations

from torch import Tensor

from cascadezoo.stages.base import StageGeometry
from cascadezoo.stages.conv_refiner.config import ConvRefinerConfig
from cascadezoo.stages.conv_refiner.network import PlainConvolutions
from cascadezoo.stages.residual_stage import ResidualStage

__all__ = ["ConvRefiner"]


class ConvRefiner(ResidualStage):
    """Plain convolutions (Kim et al. 2016), added to the upstream image."""

    Config = ConvRefinerConfig
    config: ConvRefinerConfig

    def __init__(self, config: ConvRefinerConfig, geometry: StageGeometry) -> None:
        super().__init__(config, geometry)
        self.network = PlainConvolutions(
            geometry.output.channels,
            hidden=config.hidden,
            layers=config.layers,
            kernel=config.kernel,
        )

    def base(self, upstream: Tensor) -> Tensor:
        """The upstream image as it is."""
        return upstream

    def residual(self, upstream: Tensor) -> Tensor:
        """What the network adds."""
        correction: Tensor = self.network(upstream)
        return self.config.residual_scale * correction
