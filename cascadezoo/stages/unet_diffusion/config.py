"""The config of ``unet-diffusion.v1``. Free of torch."""

from __future__ import annotations

from cascadezoo.stages.process_config import DiffusionProcessConfig
from cascadezoo.stages.shared_config import ConditionalGeneratorConfig, UNetConfig

__all__ = ["UNetDiffusionConfig"]


class UNetDiffusionConfig(DiffusionProcessConfig, UNetConfig, ConditionalGeneratorConfig):
    """Denoising diffusion (Ho et al. 2020; Nichol & Dhariwal 2021) on a U-Net."""
