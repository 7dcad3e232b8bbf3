"""The config of ``flow.v1``. Free of torch."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field

from cascadezoo.configs import ConfigProblem, ImageShape, Width
from cascadezoo.nn.sizes import unet_resolutions
from cascadezoo.stages.config import ConditionalGeneratorConfig, Count, Dropout, Guidance

__all__ = ["FlowConfig"]


class FlowConfig(ConditionalGeneratorConfig):
    """Rectified flow (Liu et al. 2023) on a small U-Net, told the labels where there are any."""

    channels: Width = 32
    """Width of the U-Net's first level."""

    multipliers: Annotated[
        list[Annotated[int, Field(ge=1, le=64)]], Field(min_length=1, max_length=8)
    ] = [1, 2, 2]
    """Width of each level as a multiple of `channels`; each but the first halves the resolution."""

    blocks: Count = 1
    """Residual blocks per level, on the way down and on the way up."""

    attention: list[Annotated[int, Field(ge=1)]] = []
    """Resolutions (height of a level in pixels) with self-attention after each residual block."""

    middle_attention: bool = False
    """Self-attention at the lowest resolution, between down and up."""

    dropout: Dropout = 0.0
    """Dropout in every residual block."""

    time_sampling: Literal["logit-normal", "uniform"] = "logit-normal"
    """How training draws its times: mostly in the middle (Esser et al. 2024), or evenly."""

    steps: Annotated[int, Field(ge=1, le=10_000)] = 25
    """Steps of sampling."""

    sampler: Literal["euler"] = "euler"
    """The solver that sampling integrates the velocity with."""

    guidance: Guidance = 2.0
    """Scale of classifier-free guidance in sampling: 1 is none, 0 ignores the label, more follows
    it more closely at the cost of variety. Has no effect on data without labels."""

    def fit(self, output: ImageShape) -> Self:
        """Fill ``size`` in, and check that the resolutions with attention are there.

        Raises:
            ConfigProblem: ``size`` is not what follows needs; ``attention`` names a resolution
                that no level has.
        """
        fitted = super().fit(output)
        known = unet_resolutions(output.size, len(self.multipliers))
        for resolution in self.attention:
            if resolution not in known:
                levels = ", ".join(map(str, known))
                raise ConfigProblem(
                    "attention", f"names {resolution}, but the levels of the U-Net are at {levels}"
                )
        return fitted
