"""``flow-sr.v1`` and ``.v2``: super-resolution by rectified flow, of the image or its residual."""

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
    StageEntry(
        name="flow-sr.v2",
        role="upsampler",
        summary="super-resolution by rectified flow of the scaled residual",
        config="cascadezoo.stages.flow_sr.config:FlowResidualSRConfig",
        impl="cascadezoo.stages.flow_sr.stage:FlowResidualUpsampler",
    ),
)
