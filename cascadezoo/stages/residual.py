"""What upsamplers and refiners have in common: a residual to a fixed enlargement."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from cascadezoo.stages.base import SampleRequest, Stage, StageInputs, StageOutput, TrainContext
from cascadezoo.stages.sampling import bounded

__all__ = ["ResidualStage"]


class ResidualStage(Stage):
    """Base of stages that add a predicted residual to an interpolation of their upstream image.

    An upsampler that predicts pixels has to learn the interpolation first; one that predicts what
    the interpolation lacks starts from it. A subclass's last layer starts at zero, so an untrained
    stage is the interpolation exactly.
    """

    @abstractmethod
    def base(self, upstream: Tensor) -> Tensor:
        """The fixed part: the upstream image at ``out_size``."""

    @abstractmethod
    def residual(self, upstream: Tensor) -> Tensor:
        """The learned part, scaled, [N, C, out_size, out_size]."""

    def preprocess(
        self, target: Tensor, upstream: Tensor | None, context: TrainContext
    ) -> StageInputs:
        """Target and upstream image as they are."""
        return StageInputs(target=target, upstream=upstream)

    def forward(self, inputs: StageInputs) -> StageOutput:
        """The squared error of the enlarged image, and that image, not limited to [-1, 1]."""
        estimate = self._predict(inputs.upstream)
        loss = (estimate - inputs.target).square().mean()
        return StageOutput(estimate, {"mse": loss})

    def sample(self, upstream: Tensor | None, request: SampleRequest) -> Tensor:
        """The enlarged image, [N, C, out_size, out_size], in [-1, 1] unless it is of latents."""
        return bounded(self._predict(upstream), self.geometry.output)

    def _predict(self, upstream: Tensor | None) -> Tensor:
        if upstream is None:
            raise TypeError(f"{type(self).__name__} needs an upstream image")
        return self.base(upstream.float()) + self.residual(upstream).float()
