"""``flow-sr.v1`` and ``.v2``: upsamplers that follow a velocity from noise to the fine image."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from torch import Tensor

from cascadezoo.errors import SampleError
from cascadezoo.stages.base import (
    SampleRequest,
    StageGeometry,
    StageInputs,
    StageOutput,
    TrainContext,
    enlarged_size,
)
from cascadezoo.stages.flow_sr.config import FlowResidualSRConfig, FlowSRConfig
from cascadezoo.stages.flow_stage import FlowStage
from cascadezoo.stages.request_options import bounded
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


class FlowResidualUpsampler(FlowUpsampler):
    """Rectified flow of the scaled residual to the enlarged, augmented upstream image.

    ``z = (image - enlarged) / residual_scale`` is the data of the flow. The network is conditioned
    on ``enlarged``, so it can also undo the noise of the augmentation.
    """

    Config = FlowResidualSRConfig
    sampling_options: ClassVar[frozenset[str]] = FlowUpsampler.sampling_options - {"stop"}
    config: FlowResidualSRConfig

    def preprocess(
        self, target: Tensor, upstream: Tensor | None, context: TrainContext
    ) -> StageInputs:
        """The inputs of the base class, for the residual."""
        conditions = self.training_conditions(upstream, context)
        residual = (target - conditions["condition"]) / self.config.residual_scale
        inputs = self.noised(residual, upstream, context)
        return dataclasses.replace(inputs, extra=conditions)

    def forward(self, inputs: StageInputs) -> StageOutput:
        """The squared error of the residual's velocity, and the image."""
        output = super().forward(inputs)
        return StageOutput(self._image(inputs.extra["condition"], output.estimate), output.losses)

    def sample(self, upstream: Tensor | None, request: SampleRequest) -> Tensor:
        """The enlarged image plus a residual integrated from noise, [N, C, H, W].

        Raises:
            SampleError: the request stops early, or the model does not support it.
        """
        if request.options.get("stop", 1.0) < 1:
            raise SampleError(
                "a flow of the residual cannot stop at a noise level: its states are not noisy "
                "images",
                hint="omit stop",
                code="sample-stop-residual",
            )
        conditions = self.sampling_conditions(upstream, request)
        channels, size = self.geometry.output.channels, enlarged_size(self, upstream)
        start = request.draw.randn(request.count, channels, *size)
        if (edit := request.edit) is not None:
            residual = (edit.image - conditions[0]) / self.config.residual_scale
            request = dataclasses.replace(request, edit=dataclasses.replace(edit, image=residual))
        if (watch := request.watch) is not None:
            request = dataclasses.replace(
                request, watch=lambda z: watch(self._image(conditions[0], z))
            )
        return self._image(conditions[0], self.integrate(start, conditions, request))

    def limited(self, data: Tensor) -> Tensor:
        """Residuals are not limited; only the resulting image is."""
        return data

    def _image(self, enlarged: Tensor, residual: Tensor) -> Tensor:
        return bounded(enlarged + self.config.residual_scale * residual, self.geometry.output)
