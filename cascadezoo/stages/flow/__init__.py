"""flow.v1: rectified flow on a class-conditional U-Net."""

from __future__ import annotations

from cascadezoo.plugins.registry import StageEntry

__all__ = ["ENTRIES"]

ENTRIES = (
    StageEntry(
        name="flow.v1",
        role="generator",
        summary="rectified flow on a class-conditional U-Net",
        config="cascadezoo.stages.flow.config:FlowConfig",
        impl="cascadezoo.stages.flow.stage:FlowGenerator",
    ),
)
