"""flow-sr.v1: super-resolution by rectified flow, with conditioning augmentation."""

from __future__ import annotations

from cascadezoo.plugins.registry import StageEntry

__all__ = ["ENTRIES"]

ENTRIES = (
    StageEntry(
        name="flow-sr.v1",
        role="upsampler",
        summary="super-resolution by rectified flow with conditioning augmentation",
        config="cascadezoo.stages.flow_sr.config:FlowSRConfig",
        impl="cascadezoo.stages.flow_sr.stage:FlowUpsampler",
    ),
)
