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

    Its estimate is an image of the target's label, and not a guess of the target.
    """

    Config = GanConfig
    config: GanConfig

    def __init__(self, config: GanConfig, geometry: StageGeometry) -> None:
        labels = geometry.num_classes if config.conditional else None
        super().__init__(config, geometry, labels, spread=True)
        self.knows = labels
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
        """Draws the noise vectors."""
        return StageInputs(
            target,
            labels=None if self.knows is None else context.labels,
            noise=context.draw.randn(len(target), self.config.noise),
            extra=self.penalised(target, context),
        )

    def forward(self, inputs: StageInputs) -> StageOutput:
        """Made images, and the losses of both sides."""
        if inputs.noise is None:
            raise TypeError("GanGenerator takes the inputs that its preprocess makes")
        made: Tensor = self.painter(inputs.noise, inputs.labels)
        penalise = "penalised" in inputs.extra
        return StageOutput(made, self.judge(made, inputs.target, inputs.labels, penalise=penalise))

    def sample(self, upstream: Tensor | None, request: SampleRequest) -> Tensor:
        """Images of the labels asked for; without any, of labels that are drawn."""
        labels = request.labels if self.knows is not None else None
        if self.knows is not None and labels is None:
            labels = request.draw.randint(0, self.knows, request.count)
        noise = request.draw.randn(request.count, self.config.noise)
        made: Tensor = self.painter(noise, labels)
        return made if self.geometry.output.latent else made.clamp(-1.0, 1.0)
