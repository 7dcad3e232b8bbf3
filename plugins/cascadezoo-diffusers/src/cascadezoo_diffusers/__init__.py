"""Models of diffusers as stages of cascadezoo: U-Nets with a scheduler, and AutoencoderKL."""

from __future__ import annotations

from cascadezoo import StageEntry, hookimpl

__all__ = ["register_stages"]


@hookimpl
def register_stages() -> list[StageEntry]:
    """The three kinds of this plugin."""
    return [
        StageEntry(
            name="diffusers-unet2d.v1",
            role="generator",
            summary="a UNet2DModel of diffusers with any of its schedulers",
            config="cascadezoo_diffusers.config:UNet2DConfig",
            impl="cascadezoo_diffusers.unet:UNet2DGenerator",
        ),
        StageEntry(
            name="diffusers-unet2d-sr.v1",
            role="upsampler",
            summary="a UNet2DModel of diffusers that sees the enlarged upstream image",
            config="cascadezoo_diffusers.config:UNet2DSRConfig",
            impl="cascadezoo_diffusers.unet:UNet2DUpsampler",
        ),
        StageEntry(
            name="diffusers-autoencoder-kl.v1",
            role="decoder",
            summary="an AutoencoderKL of diffusers, trained here or taken as it is",
            config="cascadezoo_diffusers.config_kl:AutoencoderKLConfig",
            impl="cascadezoo_diffusers.autoencoder:AutoencoderKLDecoder",
        ),
    ]
