"""``vit.v1``: a refiner that corrects an image patch by patch, each patch seeing all others."""

from __future__ import annotations

from torch import Tensor

from cascadezoo.stages.base import StageGeometry
from cascadezoo.stages.residual_stage import ResidualStage
from cascadezoo.stages.vit.config import ViTConfig
from cascadezoo.stages.vit.network import PatchTransformer

__all__ = ["ViTRefiner"]


class ViTRefiner(ResidualStage):
    """Transformer blocks on patches (Dosovitskiy et al. 2021), added to the upstream image."""

    Config = ViTConfig
    config: ViTConfig

    def __init__(self, config: ViTConfig, geometry: StageGeometry) -> None:
        super().__init__(config, geometry)
        output = geometry.output
        self.network = PatchTransformer(
            output.channels,
            size=output.size,
            patch=config.patch_size,
            features=config.features,
            blocks=config.blocks,
            heads=config.heads,
            mlp_ratio=config.mlp_ratio,
            dropout=config.dropout,
        )

    def base(self, upstream: Tensor) -> Tensor:
        """The upstream image as it is."""
        return upstream

    def residual(self, upstream: Tensor) -> Tensor:
        """What the network adds."""
        correction: Tensor = self.network(upstream)
        return self.config.residual_scale * correction
