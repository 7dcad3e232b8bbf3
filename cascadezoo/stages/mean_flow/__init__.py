"""mean-flow.v1: a flow whose network predicts average velocities, for sampling in one step."""

from __future__ import annotations

from cascadezoo.plugins.registry import StageEntry

__all__ = ["ENTRIES"]

ENTRIES = (
    StageEntry(
        name="mean-flow.v1",
        role="generator",
        summary="MeanFlow on a class-conditional U-Net, for sampling in one step",
        config="cascadezoo.stages.mean_flow.config:MeanFlowConfig",
        impl="cascadezoo.stages.mean_flow.stage:MeanFlowGenerator",
    ),
)
