"""The config of ``diffusion.v1``. Free of torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from cascadezoo.configs import ImageShape, Width
from cascadezoo.diffusion.schedules import (
    Spacing,
    alphas_cumprod,
    cosine_betas,
    linear_betas,
    rescale_zero_terminal_snr,
    terminal_signal_variance,
)
from cascadezoo.stages.config import ConditionalGeneratorConfig, Count, Dropout

__all__ = ["DiffusionConfig"]

Beta = Annotated[float, Field(gt=0.0, lt=1.0)]

# Below this, alpha and what is divided by it leave the range of float32.
FAINTEST_SIGNAL = 1e-20

# Above this, a last step is far enough from pure noise that samples show it.
PURE_NOISE = 0.01


class DiffusionConfig(ConditionalGeneratorConfig):
    """The cascade study's generator: a shallow wide network that removes noise in T timesteps.

    The defaults are the study's. With them the last timestep is far from pure noise (see
    ``zero_terminal_snr``).
    """

    channels: Width = 128
    """Width of the layers' inputs and outputs."""

    latent: Width = 256
    """Width inside each layer."""

    layers: Count = 6
    """How many layers, all at full resolution; each looks around once, by a 3x3 convolution."""

    skip_every: Count = 2
    """A skip connection spans this many layers."""

    embedding: Width = 32
    """Width of the sinusoidal timestep embedding."""

    embedding_hidden: Width = 128
    """Width of the perceptron that the timestep embedding passes through."""

    dropout: Dropout = 0.0
    """Dropout in every layer."""

    timesteps: Annotated[int, Field(ge=2, le=10_000)] = 25
    """T, the number of steps of the forward process."""

    schedule: Literal["linear", "cosine"] = "linear"
    """How the noise grows: betas from `beta_start` to `beta_end` (Ho et al. 2020), or a squared
    cosine (Nichol & Dhariwal 2021), which needs no end points."""

    beta_start: Beta = 1e-4
    """The first beta of the linear schedule."""

    beta_end: Beta = 0.02
    """The last beta of the linear schedule. 0.02 is meant for 1000 timesteps."""

    zero_terminal_snr: bool = False
    """Rescale the schedule so that its last timestep is pure noise (Lin et al. 2024)."""

    prediction: Literal["eps", "x0", "v"] = "eps"
    """What the network predicts: the noise, the clean image, or the velocity."""

    clip_x0: bool = True
    """Limit each estimate of the clean image to [-1, 1]; never done to latents."""

    sampler: Literal["ddpm", "ddim"] = "ddpm"
    """Ancestral sampling (Ho et al. 2020) or implicit sampling (Song et al. 2021)."""

    steps: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Steps of sampling, at most `timesteps`; None takes all."""

    spacing: Spacing = "trailing"
    """Which timesteps sampling visits: from the last (trailing), to the first (leading), or both
    ends (linspace)."""

    variance: Literal["small", "large"] = "small"
    """Variance of the ddpm sampler's steps: the posterior's or beta."""

    eta: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Noise of the ddim sampler's steps, from none to as much as ddpm's."""

    @field_validator("skip_every")
    @classmethod
    def _spans_layers(cls, skip_every: int, info: ValidationInfo) -> int:
        layers = info.data.get("layers", skip_every)
        if skip_every > layers:
            raise ValueError(f"is {skip_every}, but there are only {layers} layers to span")
        return skip_every

    @field_validator("beta_end")
    @classmethod
    def _rises_and_lasts(cls, end: float, info: ValidationInfo) -> float:
        start, timesteps = info.data.get("beta_start"), info.data.get("timesteps")
        if start is not None and start >= end:
            raise ValueError(f"is {end:g}, which is not above beta_start, {start:g}")
        if start is None or timesteps is None or info.data.get("schedule") != "linear":
            return end
        if terminal_signal_variance(linear_betas(timesteps, start, end)) < FAINTEST_SIGNAL:
            raise ValueError(
                f"is {end:g}, under which nothing of the image is left long before the last of "
                f"{timesteps} timesteps; lower it, or take fewer timesteps"
            )
        return end

    @field_validator("prediction")
    @classmethod
    def _can_be_converted(cls, prediction: str, info: ValidationInfo) -> str:
        if prediction == "eps" and info.data.get("zero_terminal_snr"):
            raise ValueError(
                "is eps, which tells nothing of the image where the signal is zero, as it is at "
                "the last timestep under zero_terminal_snr; predict v or x0"
            )
        return prediction

    @field_validator("steps")
    @classmethod
    def _are_there(cls, steps: int | None, info: ValidationInfo) -> int | None:
        timesteps = info.data.get("timesteps")
        if steps is not None and timesteps is not None and steps > timesteps:
            raise ValueError(f"is {steps}, but there are only {timesteps} timesteps")
        return steps

    def betas(self) -> list[float]:
        """The noise schedule, one beta a timestep, float64."""
        if self.schedule == "linear":
            betas = linear_betas(self.timesteps, self.beta_start, self.beta_end)
        else:
            betas = cosine_betas(self.timesteps)
        return rescale_zero_terminal_snr(betas) if self.zero_terminal_snr else betas

    def signal(self) -> list[float]:
        """The variance that the image keeps at each timestep, float64."""
        return alphas_cumprod(self.betas())

    def advice(self, output: ImageShape, num_classes: int | None) -> Iterable[str]:
        """Warn of a schedule whose last timestep is far from pure noise."""
        yield from super().advice(output, num_classes)
        left = self.signal()[-1]
        if left > PURE_NOISE:
            yield (
                f"the last of {self.timesteps} steps still keeps {100 * left:.2g} % of the "
                "signal's variance, so sampling from pure noise does not match training; set "
                "zero_terminal_snr with prediction v (see paper-baseline-fixed)"
            )
