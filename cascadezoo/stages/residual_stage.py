"""What upsamplers and refiners have in common that follow from their upstream image alone."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn

from cascadezoo.nn.upsample import enlarge
from cascadezoo.spec.configs import ImageShape, StageConfig
from cascadezoo.stages.base import (
    SampleRequest,
    Stage,
    StageGeometry,
    StageInputs,
    StageOutput,
    TrainContext,
)
from cascadezoo.stages.request_options import bounded
from cascadezoo.stages.shared_config import ResidualRefinerConfig, ResidualUpsamplerConfig

__all__ = ["MappingStage", "ResidualRefiner", "ResidualStage", "ResidualUpsampler"]


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
    """Base of stages that add a network's output to a fixed image: ``base + scale * network``.

    A subclass of :class:`ResidualUpsampler` or :class:`ResidualRefiner` gives its network alone.
    The network's last layer starts at zero, so that an untrained stage is its base exactly.
    """

    config: ResidualUpsamplerConfig | ResidualRefinerConfig
    network: nn.Module

    def __init__(self, config: StageConfig, geometry: StageGeometry) -> None:
        super().__init__(config, geometry)
        self.network = self.make_network(geometry.output)

    @abstractmethod
    def make_network(self, image: ImageShape) -> nn.Module:
        """The network, from upstream images to residuals [N, C, out_size, out_size].

        Args:
            image: the shape of the stage's images.
        """

    @abstractmethod
    def base(self, upstream: Tensor) -> Tensor:
        """The fixed part: the upstream image at ``out_size``."""

    def predict(self, upstream: Tensor) -> Tensor:
        """Base and scaled residual."""
        residual: Tensor = self.network(upstream)
        return self.base(upstream.float()) + (self.config.residual_scale * residual).float()


class ResidualUpsampler(ResidualStage):
    """Base of upsamplers that add a network's output to an interpolation.

    An upsampler that predicts pixels has to learn the interpolation first; one that predicts what
    the interpolation lacks starts from it.
    """

    config: ResidualUpsamplerConfig

    def base(self, upstream: Tensor) -> Tensor:
        """The upstream image, interpolated to ``out_size``."""
        return enlarge(upstream, self.out_size, self.config.interpolation)


class ResidualRefiner(ResidualStage):
    """Base of refiners that add a network's output to the upstream image."""

    config: ResidualRefinerConfig

    def base(self, upstream: Tensor) -> Tensor:
        """The upstream image as it is."""
        return upstream
