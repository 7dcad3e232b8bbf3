"""pixelshuffle.v1: sub-pixel convolution over an interpolation."""

from __future__ import annotations

from cascadezoo.plugins.registry import StageEntry

__all__ = ["ENTRIES"]

ENTRIES = (
    StageEntry(
        name="pixelshuffle.v1",
        role="upsampler",
        summary="residual blocks and sub-pixel convolution over an interpolation",
        config="cascadezoo.stages.pixelshuffle.config:PixelShuffleConfig",
        impl="cascadezoo.stages.pixelshuffle.stage:PixelShuffleUpsampler",
    ),
)
