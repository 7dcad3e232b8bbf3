"""transposed.v1: transposed convolutions, the baseline with checkerboards."""

from __future__ import annotations

from cascadezoo.plugins.registry import StageEntry

__all__ = ["ENTRIES"]

ENTRIES = (
    StageEntry(
        name="transposed.v1",
        role="upsampler",
        summary="transposed convolutions, the baseline with checkerboards",
        config="cascadezoo.stages.transposed.config:TransposedConfig",
        impl="cascadezoo.stages.transposed.stage:TransposedUpsampler",
    ),
)
