"""The config of ``unet-diffusion.v1``. Free of torch."""

from __future__ import annotations

from cascadezoo.stages.config import ConditionalGeneratorConfig, UNetConfig
from cascadezoo.stages.process import DiffusionProcessConfig

__all__ = ["UNetDiffusionConfig"]


class UNetDiffusionConfig(DiffusionProcessConfig, UNetConfig, ConditionalGeneratorConfig):
    """Denoising diffusion (Ho et al. 2020; Nichol & Dhariwal 2021) on a U-Net."""
