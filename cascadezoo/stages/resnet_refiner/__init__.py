"""resnet-refiner.v1: residual blocks, residual output."""

from __future__ import annotations

from cascadezoo.plugins.registry import StageEntry

__all__ = ["ENTRIES"]

ENTRIES = (
    StageEntry(
        name="resnet-refiner.v1",
        role="refiner",
        summary="residual blocks with normalisation, residual output",
        config="cascadezoo.stages.resnet_refiner.config:ResNetRefinerConfig",
        impl="cascadezoo.stages.resnet_refiner.stage:ResNetRefiner",
    ),
)
