"""Bases of upsamplers and refiners that depend on their upstream image alone."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import Tensor, nn

from cascadezoo.nn.upsample import enlarge
from cascadezoo.stages.base import (
    SampleRequest,
    Stage,
    StageInputs,
    StageOutput,
    TrainContext,
    enlarged_size,
)
from cascadezoo.stages.request_options import bounded

__all__ = ["MappingStage", "ResidualRefiner", "ResidualStage", "ResidualUpsampler"]


class MappingStage(Stage):
    """Base of stages that map their upstream image to their own: no noise, no labels, one pass.

    Their networks are convolutions, which accept any size; a subclass with another network
    overrides :attr:`any_size`.
    """

    @property
    def any_size(self) -> bool:
        """Whether the network accepts images of any size."""
        return True

    @abstractmethod
    def predict(self, upstream: Tensor) -> Tensor:
        """Map an upstream image to an image, float32 [N, C, out_size, out_size], not limited."""

    def preprocess(
        self, target: Tensor, upstream: Tensor | None, context: TrainContext
    ) -> StageInputs:
        """Pass the images on; nothing is drawn."""
        return StageInputs(target=target, upstream=upstream)

    def forward(self, inputs: StageInputs) -> StageOutput:
        """The squared error of the stage's image, and that image, not limited to [-1, 1]."""
        estimate = self._predict(inputs.upstream)
        loss = (estimate - inputs.target).square().mean()
        return StageOutput(estimate, {"mse": loss})

    def sample(self, upstream: Tensor | None, request: SampleRequest) -> Tensor:
        """The stage's image, [N, C, out_size, out_size], in [-1, 1] unless it is a latent."""
        return bounded(self._predict(upstream), self.geometry.output)

    def _predict(self, upstream: Tensor | None) -> Tensor:
        if upstream is None:
            raise TypeError(f"{type(self).__name__} needs an upstream image")
        return self.predict(upstream)


class ResidualStage(MappingStage):
    """Base of stages that add a network's residual to a fixed part.

    An upsampler that predicts pixels must learn the interpolation first; one that predicts the
    residual starts from it. The network's last layer starts at zero, so an untrained stage equals
    its fixed part.
    """

    config: Any  # has residual_scale
    network: nn.Module

    @abstractmethod
    def base(self, upstream: Tensor) -> Tensor:
        """The fixed part: the upstream image at ``out_size``."""

    def residual(self, upstream: Tensor) -> Tensor:
        """The learned part, scaled, [N, C, out_size, out_size]."""
        scale: float = self.config.residual_scale
        residual: Tensor = self.network(upstream)
        return scale * residual

    def predict(self, upstream: Tensor) -> Tensor:
        """The sum of base and residual."""
        return self.base(upstream.float()) + self.residual(upstream).float()


class ResidualUpsampler(ResidualStage):
    """Base of upsamplers that correct an interpolation. A subclass sets ``network``.

    Its config has the fields ``residual_scale`` and ``interpolation``. The network maps
    [N, C, in_size, in_size] to [N, C, out_size, out_size].
    """

    def base(self, upstream: Tensor) -> Tensor:
        """The upstream image, interpolated to ``out_size``."""
        return enlarge(upstream, enlarged_size(self, upstream), self.config.interpolation)


class ResidualRefiner(ResidualStage):
    """Base of refiners that correct an image. A subclass sets ``network``.

    Its config has the field ``residual_scale``. The network keeps the shape of the image.
    """

    def base(self, upstream: Tensor) -> Tensor:
        """The unchanged upstream image."""
        return upstream
