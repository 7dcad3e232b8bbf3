"""resnet.v1: a residual network from a noise image to an image, in one pass."""

from __future__ import annotations

from cascadezoo.plugins.registry import StageEntry

__all__ = ["ENTRIES"]

ENTRIES = (
    StageEntry(
        name="resnet.v1",
        role="generator",
        summary="residual network from a noise image in one pass, without adversary (IMLE)",
        config="cascadezoo.stages.resnet.config:ResNetConfig",
        impl="cascadezoo.stages.resnet.stage:ResNetGenerator",
    ),
)
