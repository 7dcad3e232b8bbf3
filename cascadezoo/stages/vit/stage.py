"""``vit.v1``: a refiner that corrects an image patch by patch, each patch seeing all others."""

from __future__ import annotations

from torch import nn

from cascadezoo.spec.configs import ImageShape
from cascadezoo.stages.residual_stage import ResidualRefiner
from cascadezoo.stages.vit.config import ViTConfig
from cascadezoo.stages.vit.network import PatchTransformer

__all__ = ["ViTRefiner"]


class ViTRefiner(ResidualRefiner):
    """Transformer blocks on patches (Dosovitskiy et al. 2021), added to the upstream image."""

    Config = ViTConfig
    config: ViTConfig

    def make_network(self, image: ImageShape) -> nn.Module:
        """The network of the config."""
        config = self.config
        return PatchTransformer(
            image.channels,
            size=image.size,
            patch=config.patch_size,
            features=config.features,
            blocks=config.blocks,
            heads=config.heads,
            mlp_ratio=config.mlp_ratio,
            dropout=config.dropout,
        )
