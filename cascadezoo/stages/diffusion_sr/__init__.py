"""diffusion-sr.v1: super-resolution by diffusion, with conditioning augmentation."""

from __future__ import annotations

from cascadezoo.plugins.registry import StageEntry

__all__ = ["ENTRIES"]

ENTRIES = (
    StageEntry(
        name="diffusion-sr.v1",
        role="upsampler",
        summary="super-resolution diffusion with conditioning augmentation (CDM)",
        config="cascadezoo.stages.diffusion_sr.config:DiffusionSRConfig",
        impl="cascadezoo.stages.diffusion_sr.stage:DiffusionUpsampler",
    ),
)
