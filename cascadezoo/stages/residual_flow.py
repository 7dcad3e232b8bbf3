"""Base of upsamplers by rectified flow of the residual to the enlarged upstream image."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from torch import Tensor

from cascadezoo.errors import SampleError
from cascadezoo.stages.base import (
    SampleRequest,
    StageInputs,
    StageOutput,
    TrainContext,
    enlarged_size,
)
from cascadezoo.stages.flow_sr.config import FlowResidualFields
from cascadezoo.stages.flow_stage import FlowStage
from cascadezoo.stages.request_options import bounded
from cascadezoo.stages.super_resolution import SuperResolution

__all__ = ["ResidualFlow"]


class ResidualFlow(SuperResolution, FlowStage):
    """Base of flows of the scaled residual. A subclass sets ``network``.

    ``z = (image - enlarged) / residual_scale`` is the data of the flow. The network is conditioned
    on ``enlarged``, so it can also undo the noise of the augmentation.
    """

    sampling_options: ClassVar[frozenset[str]] = (
        FlowStage.sampling_options | SuperResolution.sampling_options
    ) - {"stop"}
    config: FlowResidualFields

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
