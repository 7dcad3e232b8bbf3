"""The config of ``dae.v1``. Free of torch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from cascadezoo.spec.configs import ImageShape, Probability
from cascadezoo.stages.shared_config import ConditionalGeneratorConfig, UNetConfig

__all__ = ["DAEConfig"]

# Images in [-1, 1] deviate from their mean by about 0.5.
FAR_FROM_IMAGES = 1.5


class DAEConfig(UNetConfig, ConditionalGeneratorConfig):
    """A denoising autoencoder (Vincent et al. 2008) as a generator (Bengio et al. 2013).

    Each image is corrupted again and again, each time by noise of deviation `sigma`; the network,
    a U-Net that is not told how often, learns to reconstruct the clean image from any of these
    progressively noisier ones.
    """

    sigma: Annotated[float, Field(gt=0.0, le=100.0)] = 0.5
    """Deviation of the noise that each corruption adds, of pixels in [-1, 1]."""

    levels: Annotated[int, Field(ge=1, le=10_000)] = 25
    """How many corruptions there are: after k of them the noise has deviation sigma * sqrt(k)."""

    steps: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Reconstructions of a sampling, from the last level to the first; None visits every level."""

    renoise: Probability = 0.5
    """Share of the noise, by variance, that is drawn anew after each reconstruction: at 1 each
    image is corrupted afresh, as in the Markov chain of Bengio et al.; at 0 the noise that the
    image had is kept and only scaled down."""

    @field_validator("steps")
    @classmethod
    def _are_there(cls, steps: int | None, info: ValidationInfo) -> int | None:
        levels = info.data.get("levels")
        if steps is not None and levels is not None and steps > levels:
            raise ValueError(f"is {steps}, but there are only {levels} levels")
        return steps

    def deviation(self, level: float) -> float:
        """The noise's standard deviation after so many corruptions."""
        return self.sigma * math.sqrt(level)

    def advice(self, output: ImageShape, num_classes: int | None) -> Iterable[str]:
        """Warn of a last level that shows too much of the image to begin from pure noise."""
        yield from super().advice(output, num_classes)
        most = self.deviation(self.levels)
        if most < FAR_FROM_IMAGES:
            yield (
                f"the last of {self.levels} levels has noise of deviation {most:.2g}, through "
                "which images show, so sampling from pure noise does not match training; raise "
                "levels or sigma"
            )
