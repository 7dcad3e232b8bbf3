"""dit.v1 and dit-sr.v1: rectified flow on a transformer, of images and of residuals."""

from __future__ import annotations

from cascadezoo.plugins.registry import StageEntry

__all__ = ["ENTRIES"]

ENTRIES = (
    StageEntry(
        name="dit.v1",
        role="generator",
        summary="rectified flow on a class-conditional transformer (DiT)",
        config="cascadezoo.stages.dit.config:DiTConfig",
        impl="cascadezoo.stages.dit.stage:DiTGenerator",
    ),
    StageEntry(
        name="dit-sr.v1",
        role="upsampler",
        summary="super-resolution by rectified flow of the scaled residual on a transformer (DiT)",
        config="cascadezoo.stages.dit.config:DiTSRConfig",
        impl="cascadezoo.stages.dit.stage:DiTUpsampler",
    ),
)
