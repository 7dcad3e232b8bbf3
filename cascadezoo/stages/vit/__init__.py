"""vit.v1: transformer blocks on patches, residual output."""

from __future__ import annotations

from cascadezoo.plugins.registry import StageEntry

__all__ = ["ENTRIES"]

ENTRIES = (
    StageEntry(
        name="vit.v1",
        role="refiner",
        summary="transformer blocks on patches, residual output",
        config="cascadezoo.stages.vit.config:ViTConfig",
        impl="cascadezoo.stages.vit.stage:ViTRefiner",
    ),
)
