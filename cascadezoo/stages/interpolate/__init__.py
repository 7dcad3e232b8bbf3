"""interpolate.v1: an interpolation without parameters."""

from __future__ import annotations

from cascadezoo.plugins.registry import StageEntry

__all__ = ["ENTRIES"]

ENTRIES = (
    StageEntry(
        name="interpolate.v1",
        role="upsampler",
        summary="bicubic, bilinear or nearest interpolation, no parameters",
        config="cascadezoo.stages.interpolate.config:InterpolateConfig",
        impl="cascadezoo.stages.interpolate.stage:Interpolation",
    ),
)
