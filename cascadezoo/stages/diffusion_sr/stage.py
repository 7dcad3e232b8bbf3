"""``diffusion-sr.v1``: an upsampler that samples the fine image by diffusion."""

from __future__ import annotations

from typing import ClassVar

from cascadezoo.stages.base import StageGeometry
from cascadezoo.stages.denoising_stage import DenoisingStage
from cascadezoo.stages.diffusion_sr.config import DiffusionSRConfig
from cascadezoo.stages.super_resolution import SuperResolution
from cascadezoo.stages.unet_factory import is_convolutional, make_unet

__all__ = ["DiffusionUpsampler"]


class DiffusionUpsampler(SuperResolution, DenoisingStage):
    """Super-resolution diffusion of Cascaded Diffusion Models (Ho et al. 2021)."""

    Config = DiffusionSRConfig
    sampling_options: ClassVar[frozenset[str]] = (
        DenoisingStage.sampling_options | SuperResolution.sampling_options
    )
    config: DiffusionSRConfig

    def __init__(self, config: DiffusionSRConfig, geometry: StageGeometry) -> None:
        super().__init__(config, geometry)
        self.network = make_unet(
            config,
            geometry,
            self.num_classes,
            learned=config.loss == "hybrid",
            condition=geometry.output.channels,
            levels=self.levels,
        )

    @property
    def any_size(self) -> bool:
        """Whether the U-Net has no attention."""
        return is_convolutional(self.config)
