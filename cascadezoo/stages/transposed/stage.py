"""``transposed.v1``: an upsampler of transposed convolutions, the baseline with checkerboards."""

from __future__ import annotations

import torch
from torch import Tensor

from cascadezoo.nn.upsample import enlarge
from cascadezoo.stages.base import StageGeometry
from cascadezoo.stages.residual_stage import MappingStage
from cascadezoo.stages.transposed.config import TransposedConfig
from cascadezoo.stages.transposed.network import TransposedNetwork

__all__ = ["TransposedUpsampler"]


class TransposedUpsampler(MappingStage):
    """Strided transposed convolutions (Zeiler et al. 2010), over an interpolation or alone."""

    Config = TransposedConfig
    config: TransposedConfig

    def __init__(self, config: TransposedConfig, geometry: StageGeometry) -> None:
        super().__init__(config, geometry)
        self.network = TransposedNetwork(
            geometry.output.channels,
            factor=config.factor,
            hidden=config.hidden,
            blocks=config.blocks,
            kernel=config.kernel,
            dropout=config.dropout,
        )
        if config.output == "residual":
            with torch.no_grad():
                for parameter in self.network.up[-1].parameters():
                    parameter.zero_()

    def predict(self, upstream: Tensor) -> Tensor:
        """The enlarged image."""
        image: Tensor = self.network(upstream).float()
        if self.config.output == "pixels":
            return image
        return enlarge(upstream.float(), self.out_size, self.config.interpolation) + image
