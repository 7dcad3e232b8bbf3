"""The configs of ``diffusion.v1`` and ``diffusion.v2``. Free of torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from cascadezoo.spec.configs import Width
from cascadezoo.stages.process_config import ProcessConfig, Variance
from cascadezoo.stages.shared_config import ConditionalGeneratorConfig, Count, Dropout

__all__ = ["DiffusionConfig", "PureNoiseDiffusionConfig"]


class DiffusionConfig(ProcessConfig, ConditionalGeneratorConfig):
    """The cascade study's generator: a shallow wide network that removes noise in T timesteps.

    The defaults are those of the study. With them the last timestep is far from pure noise (see
    ``zero_terminal_snr``).
    """

    widths: ClassVar[tuple[str, ...]] = ("latent", "channels")

    channels: Width = 128
    """Width of the layers' inputs and outputs."""

    latent: Width = 256
    """Width inside each layer."""

    layers: Count = 6
    """Number of layers, all at full resolution; each has one 3x3 convolution."""

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

    variance: Literal["small", "large"] = "small"
    """Variance of the ddpm sampler's steps: the posterior's or beta."""

    @field_validator("skip_every")
    @classmethod
    def _spans_layers(cls, skip_every: int, info: ValidationInfo) -> int:
        layers = info.data.get("layers", skip_every)
        if skip_every > layers:
            raise ValueError(f"is {skip_every}, more than the {layers} layers")
        return skip_every

    def step_variance(self) -> Variance:
        """The variance of the ddpm sampler's steps."""
        return self.variance


class PureNoiseDiffusionConfig(DiffusionConfig):
    """The generator of ``diffusion.v1``, with a noise schedule that ends at pure noise.

    Sampling starts from pure noise. The study's schedule leaves 78 % of the signal's variance at
    the last of 25 timesteps, so its network never learns to do without (Lin et al. 2024).
    """

    schedule: Literal["linear", "cosine"] = "cosine"
    """The noise schedule: betas from `beta_start` to `beta_end` (Ho et al. 2020), or a squared
    cosine (Nichol & Dhariwal 2021), which ignores the end points."""

    zero_terminal_snr: bool = True
    """Rescale the schedule so that its last timestep is pure noise (Lin et al. 2024)."""

    prediction: Literal["eps", "x0", "v"] = "v"
    """What the network predicts: the noise, the clean image, or the velocity."""
