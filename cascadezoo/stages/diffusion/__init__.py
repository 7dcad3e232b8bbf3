"""``diffusion.v1`` and ``.v2``: the shallow wide diffusion model of the cascade study."""

from __future__ import annotations

from cascadezoo.plugins.registry import StageEntry

__all__ = ["ENTRIES"]

ENTRIES = (
    StageEntry(
        name="diffusion.v1",
        role="generator",
        summary="shallow wide diffusion model of the cascade study, DDPM and DDIM sampling",
        config="cascadezoo.stages.diffusion.config:DiffusionConfig",
        impl="cascadezoo.stages.diffusion.stage:DiffusionGenerator",
    ),
    StageEntry(
        name="diffusion.v2",
        role="generator",
        summary="the same on a noise schedule that ends at pure noise, with v-prediction",
        config="cascadezoo.stages.diffusion.config:PureNoiseDiffusionConfig",
        impl="cascadezoo.stages.diffusion.stage:PureNoiseDiffusionGenerator",
    ),
)
