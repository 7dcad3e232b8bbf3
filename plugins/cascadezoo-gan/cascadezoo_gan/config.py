"""The configs of the GAN stages. Free of torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cascadezoo import GeneratorConfig, ImageShape, Model, UpsamplerConfig

__all__ = ["DiscriminatorConfig", "GanConfig", "SrGanConfig"]

Width = Annotated[int, Field(ge=1, le=65536)]
Weight = Annotated[float, Field(ge=0.0, le=1e6)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Betas = Annotated[list[Annotated[float, Field(ge=0.0, lt=1.0)]], Field(min_length=2, max_length=2)]


class DiscriminatorConfig(Model):
    """The adversary: a network that learns to distinguish real from generated images."""

    channels: Width = 32
    """Channels at full size; doubled with each halving of the image, up to eight times."""
    r1: Weight = 3.0
    """Gamma of the R1 penalty on real images (Mescheder et al. 2018); 0 disables it."""
    r1_every: Count = 4
    """The penalty is computed once in this number of steps, with this factor as weight."""
    lr_factor: Annotated[float, Field(gt=0.0, le=1000.0)] = 1.0
    """The discriminator's learning rate as a multiple of the stage's."""
    every: Count = 1
    """The discriminator is updated once in this number of steps."""
    keep: bool = False
    """Save the discriminator in models, although sampling does not need it."""

    def advice(self) -> Iterator[str]:
        """Warn about an unstable training."""
        if self.r1 == 0:
            yield "without the R1 penalty the training may not converge; set discriminator.r1 to 3"
        elif self.r1_every > 32:
            yield f"an R1 penalty once in {self.r1_every} steps is uneven; 16 is usual"


class GanConfig(GeneratorConfig):
    """A residual GAN: an image from a noise vector and, if the data have labels, a label."""

    paired: ClassVar[bool] = False

    noise: Width = 32
    """Length of the noise vector."""
    channels: Width = 32
    """Channels at full size; doubled with each halving of the image, up to eight times."""
    conditional: bool = True
    """Whether to use the labels of the data, if any."""
    every: Count = 1
    """The generator is updated once in this number of steps, so that the discriminator is ahead."""
    betas: Betas = [0.0, 0.99]
    """Betas of Adam for generator and discriminator. Momentum makes a GAN oscillate."""
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    """The adversary and its training."""

    def advice(self, output: ImageShape, num_classes: int | None) -> Iterator[str]:
        """Warn about settings that train poorly."""
        yield from self.discriminator.advice()
        grid = smallest(output.size)
        if grid > 8:
            yield (
                f"{output.size} pixels can only be halved to {grid}, so the network starts at "
                f"{grid}x{grid}; use an upsampler for such images"
            )


class SrGanConfig(UpsamplerConfig):
    """Super-resolution with a pixel loss and an adversary (Ledig et al. 2017)."""

    heeds_paired: ClassVar[bool] = True
    repeated: ClassVar[Mapping[str, int]] = {"blocks": 1}

    channels: Width = 48
    """Channels at the size of the upstream image."""
    blocks: Annotated[int, Field(ge=0, le=1000)] = 4
    """Residual blocks at that size."""
    pixel: Literal["l1", "mse"] = "l1"
    """The reconstruction error: absolute or squared."""
    adversarial: Weight = 0.005
    """The weight of the adversarial loss; that of the pixel loss is 1."""
    every: Count = 1
    """The upsampler is updated once in this number of steps, so that the discriminator is ahead."""
    betas: Betas = [0.0, 0.99]
    """Betas of Adam for upsampler and discriminator."""
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    """The adversary and its training."""

    def advice(self, output: ImageShape, num_classes: int | None) -> Iterator[str]:
        """Warn about settings that train poorly."""
        yield from self.discriminator.advice()
        if self.adversarial > 0.1:
            yield (
                f"an adversarial loss of weight {self.adversarial:g} dominates the pixel loss and "
                "invents details; 0.001 to 0.02 is usual"
            )


def smallest(size: int) -> int:
    """The smallest grid of an image: its size, halved to 4 or less, or until odd."""
    while size > 4 and size % 2 == 0:
        size //= 2
    return size
