"""``flow-sr.v1`` and ``.v2``: upsamplers that follow a velocity from noise to the fine image."""

from __future__ import annotations

from typing import ClassVar

from cascadezoo.stages.base import StageGeometry
from cascadezoo.stages.flow_sr.config import FlowResidualSRConfig, FlowSRConfig
from cascadezoo.stages.flow_stage import FlowStage
from cascadezoo.stages.residual_flow import ResidualFlow
from cascadezoo.stages.super_resolution import SuperResolution
from cascadezoo.stages.unet_factory import is_convolutional, make_unet

__all__ = ["FlowResidualUpsampler", "FlowUpsampler"]


class FlowUpsampler(SuperResolution, FlowStage):
    """Rectified flow (Liu et al. 2023), conditioned as in CDM (Ho et al. 2021)."""

    Config = FlowSRConfig
    sampling_options: ClassVar[frozenset[str]] = (
        FlowStage.sampling_options | SuperResolution.sampling_options
    )
    config: FlowSRConfig

    def __init__(self, config: FlowSRConfig, geometry: StageGeometry) -> None:
        super().__init__(config, geometry)
        self.network = make_unet(
            config,
            geometry,
            self.num_classes,
            condition=geometry.output.channels,
            levels=self.levels,
        )

    @property
    def any_size(self) -> bool:
        """Whether the U-Net has no attention."""
        return is_convolutional(self.config)


class FlowResidualUpsampler(ResidualFlow, FlowUpsampler):
    """Rectified flow of the scaled residual to the enlarged, augmented upstream image."""

    Config = FlowResidualSRConfig
    config: FlowResidualSRConfig
