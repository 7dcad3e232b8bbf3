"""``resnet.v1``: a generator that makes an image of a noise image in one pass."""

from __future__ import annotations

import torch
from torch import Tensor

from cascadezoo.errors import SampleError
from cascadezoo.nn.sizes import multiple_of
from cascadezoo.stages.base import (
    SampleRequest,
    Stage,
    StageGeometry,
    StageInputs,
    StageOutput,
    TrainContext,
)
from cascadezoo.stages.request_options import bounded
from cascadezoo.stages.resnet.config import ResNetConfig
from cascadezoo.stages.resnet.network import NoiseToImage

__all__ = ["ResNetGenerator"]


class ResNetGenerator(Stage):
    """A residual network from noise to an image, by implicit maximum likelihood estimation.

    The study names the network, "from a 16x16 noise image", and not its objective. Regression from
    noise onto images that have nothing to do with it would learn the mean image; this is one of
    the objectives that lead to more without an adversary (Li & Malik 2018, arXiv:1809.09087): for
    each training image the network makes ``candidates`` images of fresh noise, and the squared
    error of the nearest one alone is learned, so that every training image comes to have an image
    near it. With labels the candidates have the training image's (Li, Zhang & Malik 2019). The
    candidates of an image are its own, so that the split of a batch changes nothing.

    The nearest candidate is the stage's estimate: a rough version of its target, which is what the
    stages after it learn from.
    """

    Config = ResNetConfig
    config: ResNetConfig

    def __init__(self, config: ResNetConfig, geometry: StageGeometry) -> None:
        super().__init__(config, geometry)
        self.network = NoiseToImage(
            geometry.output.channels,
            channels=config.channels,
            blocks=config.blocks,
            halvings=config.halvings,
            dropout=config.dropout,
            num_classes=self.num_classes,
        )
        self.noise_size = multiple_of(geometry.output.size, 2**config.halvings)

    @property
    def num_classes(self) -> int | None:
        """How many labels the network knows; None where it knows none."""
        return self.geometry.num_classes if self.config.conditional else None

    def preprocess(
        self, target: Tensor, upstream: Tensor | None, context: TrainContext
    ) -> StageInputs:
        """Draw the candidates' noise, and keep that of the image nearest to each target."""
        labels = None if self.num_classes is None else context.labels
        if labels is None and self.num_classes is not None:
            raise TypeError(f"{type(self).__name__} was made for data with labels")
        shape = (len(target), target.shape[1], self.noise_size, self.noise_size)
        noise = context.draw.randn(*shape)
        if self.config.candidates > 1:
            nearest = self._distance(noise, labels, target)
            for _ in range(self.config.candidates - 1):
                other = context.draw.randn(*shape)
                distance = self._distance(other, labels, target)
                closer = distance < nearest
                nearest = torch.where(closer, distance, nearest)
                noise = torch.where(closer[:, None, None, None], other, noise)
        return StageInputs(target=target, upstream=upstream, labels=labels, noise=noise)

    def forward(self, inputs: StageInputs) -> StageOutput:
        """The squared error of the nearest candidate, and that candidate."""
        if inputs.noise is None:
            raise TypeError(f"{type(self).__name__} takes the inputs that its preprocess makes")
        image = self._make(inputs.noise, inputs.labels)
        loss = (image - inputs.target).square().mean()
        return StageOutput(image, {"mse": loss})

    def sample(self, upstream: Tensor | None, request: SampleRequest) -> Tensor:
        """Images of fresh noise, [N, C, out_size, out_size].

        Where the model knows labels and none are asked for, each image gets one at random.

        Raises:
            SampleError: labels are given, and the model was trained on data without.
        """
        labels, classes = request.labels, self.num_classes
        if labels is not None and self.geometry.num_classes is None:
            raise SampleError(
                "labels were given, but the model was trained on data without labels",
                hint="sample without labels",
                code="sample-no-labels",
            )
        if classes is None:
            labels = None
        elif labels is None:
            labels = request.draw.randint(0, classes, request.count)
        channels = self.geometry.output.channels
        noise = request.draw.randn(request.count, channels, self.noise_size, self.noise_size)
        return bounded(self._make(noise, labels), self.geometry.output)

    def _make(self, noise: Tensor, labels: Tensor | None) -> Tensor:
        image: Tensor = self.network(noise, labels).float()
        return image[..., : self.out_size, : self.out_size]

    @torch.no_grad()
    def _distance(self, noise: Tensor, labels: Tensor | None, target: Tensor) -> Tensor:
        """The mean squared error of each candidate, [N]."""
        return (self._make(noise, labels) - target).square().flatten(1).mean(1)
