"""``diffusion.v1`` and ``diffusion.v2``: generators that remove noise step by step."""

from __future__ import annotations

from cascadezoo.stages.base import StageGeometry
from cascadezoo.stages.denoising_stage import DenoisingStage
from cascadezoo.stages.diffusion.config import DiffusionConfig, PureNoiseDiffusionConfig
from cascadezoo.stages.diffusion.network import ShallowWide

__all__ = ["DiffusionGenerator", "PureNoiseDiffusionGenerator"]


class DiffusionGenerator(DenoisingStage):
    """Denoising diffusion (Ho et al. 2020) on a shallow wide network."""

    Config = DiffusionConfig
    config: DiffusionConfig

    def __init__(self, config: DiffusionConfig, geometry: StageGeometry) -> None:
        super().__init__(config, geometry)
        self.network = ShallowWide(
            geometry.output.channels,
            channels=config.channels,
            latent=config.latent,
            layers=config.layers,
            skip_every=config.skip_every,
            embedding=config.embedding,
            embedding_hidden=config.embedding_hidden,
            dropout=config.dropout,
            num_classes=self.num_classes,
        )


class PureNoiseDiffusionGenerator(DiffusionGenerator):
    """The same from pure noise; only the defaults of its config differ."""

    Config = PureNoiseDiffusionConfig
