"""Models of diffusers as stages of cascadezoo: U-Nets with a scheduler, and AutoencoderKL.

Its specs are in ``presets/``.
"""

from __future__ import annotations

from cascadezoo import SpecEntry, StageEntry, hookimpl

__all__ = ["register_specs", "register_stages"]


@hookimpl
def register_stages() -> list[StageEntry]:
    """The kinds of this plugin."""
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
            summary="a UNet2DModel of diffusers, conditioned on the enlarged upstream image",
            config="cascadezoo_diffusers.config:UNet2DSRConfig",
            impl="cascadezoo_diffusers.unet:UNet2DUpsampler",
        ),
        StageEntry(
            name="diffusers-autoencoder-kl.v1",
            role="decoder",
            summary="an AutoencoderKL of diffusers, trained or pretrained",
            config="cascadezoo_diffusers.config_kl:AutoencoderKLConfig",
            impl="cascadezoo_diffusers.autoencoder:AutoencoderKLDecoder",
        ),
        StageEntry(
            name="autoencoder-kl.v1",
            role="decoder",
            summary="a pretrained AutoencoderKL of diffusers, frozen",
            config="cascadezoo_diffusers.config_pretrained:PretrainedAutoencoderKLConfig",
            impl="cascadezoo_diffusers.pretrained:PretrainedAutoencoderKL",
        ),
    ]


@hookimpl
def register_specs() -> list[SpecEntry]:
    """Latent cascades for ImageNet."""
    return [
        SpecEntry(
            name="imagenet256-latent-flow",
            summary="rectified flow in the latents of a pretrained autoencoder",
            impl="cascadezoo_diffusers.presets:imagenet256-latent-flow.json",
        ),
        SpecEntry(
            name="imagenet256-latent-diffusion",
            summary="diffusion in the latents of a pretrained autoencoder",
            impl="cascadezoo_diffusers.presets:imagenet256-latent-diffusion.json",
        ),
        SpecEntry(
            name="imagenet100-latent-ddim",
            summary="DDIM with guidance in the latents of a pretrained autoencoder",
            impl="cascadezoo_diffusers.presets:imagenet100-latent-ddim.json",
        ),
    ]
