"""unet-diffusion.v1: denoising diffusion on a U-Net."""

from __future__ import annotations

from cascadezoo.plugins.registry import StageEntry

__all__ = ["ENTRIES"]

ENTRIES = (
    StageEntry(
        name="unet-diffusion.v1",
        role="generator",
        summary="denoising diffusion on a U-Net: DDPM, DDIM, DPM-Solver++, Heun; guidance",
        config="cascadezoo.stages.unet_diffusion.config:UNetDiffusionConfig",
        impl="cascadezoo.stages.unet_diffusion.stage:UNetDiffusionGenerator",
    ),
)
