"""resnet-upsampler.v1: residual blocks and resize convolutions over an interpolation."""

from __future__ import annotations

from cascadezoo.plugins.registry import StageEntry

__all__ = ["ENTRIES"]

ENTRIES = (
    StageEntry(
        name="resnet-upsampler.v1",
        role="upsampler",
        summary="residual blocks and resize convolutions over an interpolation",
        config="cascadezoo.stages.resnet_upsampler.config:ResNetUpsamplerConfig",
        impl="cascadezoo.stages.resnet_upsampler.stage:ResNetUpsampler",
    ),
)
