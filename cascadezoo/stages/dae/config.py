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

    Each image is corrupted repeatedly by noise of standard deviation `sigma`. The network is a
    U-Net that does not receive the number of corruptions. It learns to reconstruct the clean image
    from any of these progressively noisier images.
    """

    sigma: Annotated[float, Field(gt=0.0, le=100.0)] = 0.5
    """Standard deviation of the noise of each corruption, for pixels in [-1, 1]."""

    levels: Annotated[int, Field(ge=1, le=10_000)] = 25
    """Number of corruptions: after k corruptions the noise has standard deviation
    sigma * sqrt(k)."""

    steps: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Number of reconstructions in sampling, from the last level; None visits every level."""

    renoise: Probability = 0.5
    """Share of the noise, by variance, that is redrawn after each reconstruction. 1 corrupts
    each image with new noise, as in the Markov chain of Bengio et al. 0 keeps the noise of the
    image and only scales it down."""

    @field_validator("steps")
    @classmethod
    def _check_steps(cls, steps: int | None, info: ValidationInfo) -> int | None:
        levels = info.data.get("levels")
        if steps is not None and levels is not None and steps > levels:
            raise ValueError(f"is {steps}, more than the {levels} levels")
        return steps

    def deviation(self, level: float) -> float:
        """The standard deviation of the noise after ``level`` corruptions."""
        return self.sigma * math.sqrt(level)

    def advice(self, output: ImageShape, num_classes: int | None) -> Iterable[str]:
        """Warn about a last level that is too far from pure noise."""
        yield from super().advice(output, num_classes)
        most = self.deviation(self.levels)
        if most < FAR_FROM_IMAGES:
            yield (
                f"the noise of the last of {self.levels} levels has a standard deviation of "
                f"{most:.2g}, so images remain visible and sampling from pure noise does not match "
                "training; raise levels or sigma"
            )
