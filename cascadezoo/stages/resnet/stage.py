"""``resnet.v1``: a generator that turns a noise image into an image in one pass."""

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

    The study describes the network, "from a 16x16 noise image", but not its objective. Regression
    from noise to unrelated images would learn the mean image. This objective needs no adversary
    and learns more than the mean (Li & Malik 2018, arXiv:1809.09087): for each training image the
    network generates ``candidates`` images from fresh noise, and only the squared error of the
    nearest one is minimised, so every training image obtains a generated image near it. With
    labels, the candidates have the label of the training image (Li, Zhang & Malik 2019). Each image
    has its own candidates, so the result does not depend on how a batch is split.

    The nearest candidate is the stage's estimate: a rough version of its target, from which the
    stages after it learn.
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
        """Number of labels of the network; None for a network without labels."""
        return self.geometry.num_classes if self.config.conditional else None

    def preprocess(
        self, target: Tensor, upstream: Tensor | None, context: TrainContext
    ) -> StageInputs:
        """Draw noise for the candidates and keep the noise of the one nearest to each target."""
        labels = None if self.num_classes is None else context.labels
        if labels is None and self.num_classes is not None:
            raise TypeError(f"{type(self).__name__} needs labels")
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
            raise TypeError(f"{type(self).__name__} needs the inputs from its preprocess")
        image = self._make(inputs.noise, inputs.labels)
        loss = (image - inputs.target).square().mean()
        return StageOutput(image, {"mse": loss})

    def sample(self, upstream: Tensor | None, request: SampleRequest) -> Tensor:
        """Images from fresh noise, [N, C, out_size, out_size].

        A model with labels draws a random label for each image if the request has none.

        Raises:
            SampleError: labels are given, but the model was trained on data without labels.
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
