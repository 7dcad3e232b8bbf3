"""What upsamplers and refiners have in common that follow from their upstream image alone."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from cascadezoo.stages.base import SampleRequest, Stage, StageInputs, StageOutput, TrainContext
from cascadezoo.stages.request_options import bounded

__all__ = ["MappingStage", "ResidualStage"]


class MappingStage(Stage):
    """Base of stages that map their upstream image to their own: no noise, no labels, one pass."""

    @abstractmethod
    def predict(self, upstream: Tensor) -> Tensor:
        """The image of an upstream image, float32 [N, C, out_size, out_size], not limited."""

    def preprocess(
        self, target: Tensor, upstream: Tensor | None, context: TrainContext
    ) -> StageInputs:
        """Nothing is drawn: the image follows from the upstream image alone."""
        return StageInputs(target=target, upstream=upstream)

    def forward(self, inputs: StageInputs) -> StageOutput:
        """The squared error of the stage's image, and that image, not limited to [-1, 1]."""
        estimate = self._predict(inputs.upstream)
        loss = (estimate - inputs.target).square().mean()
        return StageOutput(estimate, {"mse": loss})

    def sample(self, upstream: Tensor | None, request: SampleRequest) -> Tensor:
        """The stage's image, [N, C, out_size, out_size], in [-1, 1] unless it is of latents."""
        return bounded(self._predict(upstream), self.geometry.output)

    def _predict(self, upstream: Tensor | None) -> Tensor:
        if upstream is None:
            raise TypeError(f"{type(self).__name__} needs an upstream image")
        return self.predict(upstream)


class ResidualStage(MappingStage):
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

    def predict(self, upstream: Tensor) -> Tensor:
        """Base and residual."""
        return self.base(upstream.float()) + self.residual(upstream).float()
