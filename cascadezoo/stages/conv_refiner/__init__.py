"""conv-refiner.v1: plain convolutions, residual output."""

from __future__ import annotations

from cascadezoo.plugins.registry import StageEntry

__all__ = ["ENTRIES"]

ENTRIES = (
    StageEntry(
        name="conv-refiner.v1",
        role="refiner",
        summary="plain convolutions, residual output",
        config="cascadezoo.stages.conv_refiner.config:ConvRefinerConfig",
        impl="cascadezoo.stages.conv_refiner.stage:ConvRefiner",
    ),
)
