"""``unet-diffusion.v1``: a generator that removes noise step by step, on a U-Net."""

from __future__ import annotations

from cascadezoo.stages.base import StageGeometry
from cascadezoo.stages.denoising_stage import DenoisingStage
from cascadezoo.stages.unet_diffusion.config import UNetDiffusionConfig
from cascadezoo.stages.unet_factory import make_unet

__all__ = ["UNetDiffusionGenerator"]


class UNetDiffusionGenerator(DenoisingStage):
    """Denoising diffusion (Ho et al. 2020; Nichol & Dhariwal 2021) on a U-Net."""

    Config = UNetDiffusionConfig
    config: UNetDiffusionConfig

    def __init__(self, config: UNetDiffusionConfig, geometry: StageGeometry) -> None:
        super().__init__(config, geometry)
        learned = config.loss == "hybrid"
        self.network = make_unet(config, geometry, self.num_classes, learned=learned)
