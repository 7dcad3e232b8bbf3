"""diffusion.v1: the shallow wide diffusion model of the cascade study."""

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
)
