"""GAN stages for cascadezoo: ``gan.v1`` generates images, ``srgan.v1`` enlarges them."""

from __future__ import annotations

from collections.abc import Iterable

from cascadezoo import StageEntry, hookimpl


@hookimpl
def register_stages() -> Iterable[StageEntry]:
    """The stages of this plugin."""
    return [
        StageEntry(
            name="gan.v1",
            role="generator",
            summary="class-conditional residual GAN with its own discriminator and R1 penalty",
            config="cascadezoo_gan.config:GanConfig",
            impl="cascadezoo_gan.generator:GanGenerator",
        ),
        StageEntry(
            name="srgan.v1",
            role="upsampler",
            summary="super-resolution by pixel and adversarial loss, with its own discriminator",
            config="cascadezoo_gan.config:SrGanConfig",
            impl="cascadezoo_gan.upsampler:SrGanUpsampler",
        ),
    ]
