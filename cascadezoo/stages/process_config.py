"""Config fields of denoising diffusion: schedule, prediction, loss, sampling. Free of torch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, ValidationInfo, field_validator

from cascadezoo.diffusion.levels import Level, restart_path, reverse_path
from cascadezoo.diffusion.schedules import (
    SamplingSchedule,
    Spacing,
    alphas_cumprod,
    cosine_betas,
    determined_timesteps,
    linear_betas,
    rescale_zero_terminal_snr,
    sampling_signal,
    spaced_timesteps,
    terminal_signal_variance,
    timestep_of,
)
from cascadezoo.spec.configs import ConfigError, ImageShape, Probability, StageConfig

__all__ = ["LEVEL_SCALE", "DiffusionProcessConfig", "ProcessConfig"]

Variance = Literal["small", "large", "learned"]
Beta = Annotated[float, Field(gt=0.0, lt=1.0)]

# A time embedding expects neighbours about 1 apart; noise levels are in [0, 1].
LEVEL_SCALE = 1000.0

# Below this, alpha and quotients by alpha leave the range of float32.
FAINTEST_SIGNAL = 1e-20

# Above this, the last step is far enough from pure noise to degrade samples.
PURE_NOISE = 0.01


class ProcessConfig(StageConfig):
    """Fields of a stage that removes noise step by step (Ho et al. 2020)."""

    stops: ClassVar[bool] = True

    timesteps: Annotated[int, Field(ge=2, le=10_000)] = 1000
    """T, the number of steps of the forward process."""

    schedule: Literal["linear", "cosine"] = "linear"
    """The noise schedule: betas from `beta_start` to `beta_end` (Ho et al. 2020), or a squared
    cosine (Nichol & Dhariwal 2021), which ignores the end points."""

    beta_start: Beta = 1e-4
    """The first beta of the linear schedule."""

    beta_end: Beta = 0.02
    """The last beta of the linear schedule. 0.02 is meant for 1000 timesteps."""

    cosine_offset: Annotated[float, Field(ge=0.0, le=0.5)] = 0.008
    """The offset of the cosine schedule, which prevents too small first betas (Nichol & Dhariwal
    2021, eq. 17)."""

    zero_terminal_snr: bool = False
    """Rescale the schedule so that its last timestep is pure noise (Lin et al. 2024)."""

    prediction: Literal["eps", "x0", "v"] = "eps"
    """What the network predicts: the noise, the clean image, or the velocity."""

    clip_x0: bool = True
    """Clip each estimate of the clean image to [-1, 1]. Latents are never clipped."""

    dynamic_threshold: Annotated[float, Field(gt=0.5, le=1.0)] | None = None
    """In sampling, clip each estimate of the clean image to the quantile of its absolute values,
    and divide by it where it is above 1 (Saharia et al. 2022, section 2.3: 0.995). Against
    saturated images at a high guidance. Replaces `clip_x0` there. Latents have no such range."""

    sampler: Literal["ddpm", "ddim", "dpmpp-2m", "heun"] = "ddpm"
    """Ancestral sampling (Ho et al. 2020), implicit sampling (Song et al. 2021), DPM-Solver++(2M)
    (Lu et al. 2022), or Heun's method (Karras et al. 2022), which evaluates the network twice per
    step. Sampling can override it."""

    steps: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Number of sampling steps, at most `timesteps`; None uses all."""

    spacing: Spacing = "trailing"
    """Which timesteps sampling visits: including the last (trailing), the first (leading), or both
    (linspace)."""

    sampling_schedule: SamplingSchedule = "trained"
    """The noise levels that sampling visits: those of the trained timesteps, or others that are
    chosen after the training (Ho et al. 2021, section 4.4): DDPM's linear or the cosine schedule,
    `karras` (Karras et al. 2022, rho 7), or evenly spaced log-SNR. Other schedules than `trained`
    ignore `spacing`. A network of timesteps visits the nearest trained ones, each at most once."""

    eta: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Noise of the ddim sampler's steps: 0 is none, 1 is as much as ddpm."""

    restart: Probability = 0.0
    """Noise level, 0 to 1, that finished images are noised to; sampling runs again from there (Ho
    et al. 2021, "Cascaded Diffusion Models", table 2a: 0.504, timestep 2000 of 4000). 0 is no
    restart. It costs the steps below this level once more."""

    @field_validator("beta_end")
    @classmethod
    def _check_betas(cls, end: float, info: ValidationInfo) -> float:
        start, timesteps = info.data.get("beta_start"), info.data.get("timesteps")
        if start is not None and start >= end:
            raise ValueError(f"is {end:g}, not above beta_start ({start:g})")
        if start is None or timesteps is None or info.data.get("schedule") != "linear":
            return end
        if terminal_signal_variance(linear_betas(timesteps, start, end)) < FAINTEST_SIGNAL:
            raise ValueError(
                f"is {end:g}, which removes the image long before the last of {timesteps} "
                "timesteps; lower it, or use fewer timesteps"
            )
        return end

    @field_validator("prediction")
    @classmethod
    def _check_prediction(cls, prediction: str, info: ValidationInfo) -> str:
        if prediction == "eps" and info.data.get("zero_terminal_snr"):
            raise ValueError(
                "is eps, which has no information about the image at the last timestep under "
                "zero_terminal_snr; use v or x0"
            )
        return prediction

    @field_validator("steps")
    @classmethod
    def _check_steps(cls, steps: int | None, info: ValidationInfo) -> int | None:
        timesteps = info.data.get("timesteps")
        if steps is not None and timesteps is not None and steps > timesteps:
            raise ValueError(f"is {steps}, more than the {timesteps} timesteps")
        return steps

    def fit(self, output: ImageShape) -> Self:
        """Check that dynamic thresholding has a range, and a restart a step.

        Raises:
            ConfigError: dynamic thresholding of latents; a restart below the last step.
        """
        if self.dynamic_threshold is not None and output.latent:
            raise ConfigError(
                "dynamic_threshold",
                "is set, but latents have no range to scale to; omit it",
                code="latents",
            )
        if self.restart and not restart_path(path := self.sampling_path(output), self.restart):
            lowest = math.ceil(1000 * path[-2].level) / 1000
            raise ConfigError(
                "restart",
                f"is {self.restart:g}, but the last step of sampling starts at noise level "
                f"{lowest:g}; use {lowest:g} to 1, or more steps",
                code="too-low",
            )
        return super().fit(output)

    def step_variance(self) -> Variance:
        """The variance of the ddpm sampler's steps."""
        return "small"

    def betas(self) -> list[float]:
        """The noise schedule, one beta per timestep, float64."""
        if self.schedule == "linear":
            betas = linear_betas(self.timesteps, self.beta_start, self.beta_end)
        else:
            betas = cosine_betas(self.timesteps, self.cosine_offset)
        return rescale_zero_terminal_snr(betas) if self.zero_terminal_snr else betas

    def signal(self) -> list[float]:
        """The signal's variance at each timestep, float64."""
        return alphas_cumprod(self.betas())

    def usable_timesteps(self, output: ImageShape) -> int:
        """How many timesteps sampling uses, counted from the cleanest.

        All of them, unless the network predicts noise and the estimate of x0 is not clipped. Then
        sampling starts at the last timestep that determines x0 (``determined_timesteps``): from a
        noisier one, the division by alpha would multiply the network's error up to 20,000 times.
        """
        clipped = (self.clip_x0 or self.dynamic_threshold is not None) and not output.latent
        if self.prediction != "eps" or clipped:
            return self.timesteps
        return determined_timesteps(self.signal())

    def sampling_path(
        self,
        output: ImageShape,
        steps: int | None = None,
        stop: float = 1.0,
        schedule: SamplingSchedule | None = None,
    ) -> list[Level]:
        """The levels that sampling visits; the time of each is the network's input.

        Where all timesteps are requested, those that sampling cannot use are left out (see
        :meth:`usable_timesteps`).

        Args:
            output: the shape of the stage's images.
            steps: the number of steps, from 1 to ``timesteps``; None uses the config's.
            stop: the signal variance at the end; 1 for the clean image.
            schedule: the schedule of sampling; None uses the config's.

        Raises:
            ValueError: no step starts at a noisier level than ``stop``.
        """
        schedule = schedule or self.sampling_schedule
        signal, usable = self.signal(), self.usable_timesteps(output)
        steps = min(steps or self.steps or self.timesteps, usable)
        if schedule == "trained":
            visited = spaced_timesteps(usable, steps, self.spacing)
        else:
            # A network of timesteps has seen no time between them.
            levels = sampling_signal(schedule, steps, signal[:usable])
            times = (round(timestep_of(signal, kept)) for kept in reversed(levels))
            visited = list(dict.fromkeys(times))
        return reverse_path(signal, visited, stop)

    def first_signal(self, output: ImageShape) -> float:
        """The signal variance at the timestep where sampling starts."""
        return self.sampling_path(output)[0].signal

    def advice(self, output: ImageShape, num_classes: int | None) -> Iterable[str]:
        """Warn if sampling starts far from pure noise, by the schedule or by the spacing."""
        yield from super().advice(output, num_classes)
        left, first = self.signal()[-1], self.first_signal(output)
        if left <= PURE_NOISE < first:
            yield (
                f"sampling with {self.spacing} spacing starts where {100 * first:.2g} % of the "
                "signal's variance is left, so pure noise does not match training; set spacing to "
                "trailing, or take more steps"
            )
        if left > PURE_NOISE:
            yield (
                f"the last of {self.timesteps} timesteps still keeps {100 * left:.2g} % of the "
                "signal's variance, so sampling from pure noise does not match training; set "
                "zero_terminal_snr with prediction v (see paper-baseline-fixed)"
            )


class DiffusionProcessConfig(ProcessConfig):
    """Fields of a diffusion with optional learned variances and continuous noise levels."""

    loss: Literal["simple", "min-snr", "hybrid"] = "simple"
    """The squared error (Ho et al. 2020); the squared error weighted by the signal-to-noise ratio
    up to `snr_gamma` (Hang et al. 2023); or a hybrid with a part of the variational bound, which
    also learns the variance of each step (Nichol & Dhariwal 2021)."""

    snr_gamma: Annotated[float, Field(gt=0.0, le=1e6)] = 5.0
    """`min-snr`: the maximum of the weight."""

    noise_conditioning: Literal["timestep", "continuous"] = "timestep"
    """The input of the network: the timestep's number, or a continuous noise level (Saharia et al.
    2021; Chen et al. 2021), which allows any number of sampling steps."""

    steps: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Number of sampling steps; None uses all. At most `timesteps`, unless `noise_conditioning` is
    continuous."""

    variance: Variance | None = None
    """Variance of the ddpm sampler's steps: the posterior's, beta, or the learned one. None uses
    the learned one with the hybrid loss, and the posterior's otherwise."""

    @field_validator("steps")
    @classmethod
    def _check_steps(cls, steps: int | None, info: ValidationInfo) -> int | None:
        return steps  # Continuous noise levels allow any number; fit() checks the others.

    @field_validator("noise_conditioning")
    @classmethod
    def _check_conditioning(cls, conditioning: str, info: ValidationInfo) -> str:
        if conditioning == "continuous" and info.data.get("loss") == "hybrid":
            raise ValueError(
                "is continuous, but the hybrid loss needs timesteps; use the simple or min-snr loss"
            )
        return conditioning

    @field_validator("variance")
    @classmethod
    def _check_variance(cls, variance: str | None, info: ValidationInfo) -> str | None:
        if variance == "learned" and info.data.get("loss", "hybrid") != "hybrid":
            raise ValueError("is learned, which only the hybrid loss trains; set loss to hybrid")
        return variance

    def step_variance(self) -> Variance:
        """The variance of the ddpm sampler's steps."""
        return self.variance or ("learned" if self.loss == "hybrid" else "small")

    def sampling_path(
        self,
        output: ImageShape,
        steps: int | None = None,
        stop: float = 1.0,
        schedule: SamplingSchedule | None = None,
    ) -> list[Level]:
        """The levels that sampling visits; continuous conditioning allows any number of steps.

        Raises:
            ValueError: no step starts at a noisier level than ``stop``.
        """
        if self.noise_conditioning == "timestep":
            return super().sampling_path(output, steps, stop, schedule)
        count = steps or self.steps or self.timesteps
        trained = self.signal()[: self.usable_timesteps(output)]
        signal = sampling_signal(schedule or self.sampling_schedule, count, trained)
        path = reverse_path(signal, range(len(signal) - 1, -1, -1), stop)
        return [dataclasses.replace(at, time=at.level * LEVEL_SCALE) for at in path]

    def fit(self, output: ImageShape) -> Self:
        """Fill in ``variance`` and check the number of steps.

        Raises:
            ConfigError: more steps than timesteps; a hybrid loss on latents.
        """
        if self.loss == "hybrid" and output.latent:
            raise ConfigError(
                "loss",
                "is hybrid, whose bound needs pixels with 256 values; this stage makes latents",
                code="latents",
            )
        if self.noise_conditioning == "timestep" and (self.steps or 1) > self.timesteps:
            raise ConfigError(
                "steps",
                f"is {self.steps}, more than the {self.timesteps} timesteps",
                code="too-many",
            )
        return super().fit(output).model_copy(update={"variance": self.step_variance()})
