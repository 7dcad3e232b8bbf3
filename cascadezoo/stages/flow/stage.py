"""``flow.v1``: a generator that follows a learned velocity from noise to an image."""

from __future__ import annotations

from cascadezoo.stages.base import StageGeometry
from cascadezoo.stages.flow.config import FlowConfig
from cascadezoo.stages.flow_stage import FlowStage
from cascadezoo.stages.unet_factory import make_unet

__all__ = ["FlowGenerator"]


class FlowGenerator(FlowStage):
    """Rectified flow (Liu et al. 2023) on a U-Net."""

    Config = FlowConfig
    config: FlowConfig

    def __init__(self, config: FlowConfig, geometry: StageGeometry) -> None:
        super().__init__(config, geometry)
        self.network = make_unet(config, geometry, self.num_classes)
