"""``gan.v1``: images from noise vectors."""

from __future__ import annotations

from torch import Tensor

from cascadezoo import SampleRequest, StageGeometry, StageInputs, StageOutput, TrainContext
from cascadezoo_gan.adversarial import AdversarialStage
from cascadezoo_gan.config import GanConfig
from cascadezoo_gan.layers import Painter

__all__ = ["GanGenerator"]


class GanGenerator(AdversarialStage):
    """A generative adversarial network (Goodfellow et al. 2014), with R1 (Mescheder et al. 2018).

    Its estimate is an image with the target's label, not a prediction of the target.
    """

    Config = GanConfig
    config: GanConfig

    def __init__(self, config: GanConfig, geometry: StageGeometry) -> None:
        labels = geometry.num_classes if config.conditional else None
        super().__init__(config, geometry, labels, spread=True)
        self.num_labels = labels
        shape = geometry.output
        self.painter = Painter(
            shape.channels,
            shape.size,
            config.channels,
            config.noise,
            labels,
        )

    def preprocess(
        self, target: Tensor, upstream: Tensor | None, context: TrainContext
    ) -> StageInputs:
        """Draw the noise vectors."""
        return StageInputs(
            target,
            labels=None if self.num_labels is None else context.labels,
            noise=context.draw.randn(len(target), self.config.noise),
            extra=self.penalised(target, context),
        )

    def forward(self, inputs: StageInputs) -> StageOutput:
        """Generated images, and the losses of both networks."""
        if inputs.noise is None:
            raise TypeError("GanGenerator needs the inputs from its preprocess")
        images: Tensor = self.painter(inputs.noise, inputs.labels)
        penalise = "penalised" in inputs.extra
        losses = self.judge(images, inputs.target, inputs.labels, penalise=penalise)
        return StageOutput(images, losses)

    def sample(self, upstream: Tensor | None, request: SampleRequest) -> Tensor:
        """Images of the requested labels, or of random labels if the request has none."""
        labels = request.labels if self.num_labels is not None else None
        if self.num_labels is not None and labels is None:
            labels = request.draw.randint(0, self.num_labels, request.count)
        noise = request.draw.randn(request.count, self.config.noise)
        images: Tensor = self.painter(noise, labels)
        return images if self.geometry.output.latent else images.clamp(-1.0, 1.0)
