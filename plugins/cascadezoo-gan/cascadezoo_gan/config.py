"""The configs of the GAN stages. Free of torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cascadezoo import GeneratorConfig, ImageShape, Model, UpsamplerConfig

__all__ = ["DiscriminatorConfig", "GanConfig", "SrGanConfig"]

Width = Annotated[int, Field(ge=1, le=65536)]
Weight = Annotated[float, Field(ge=0.0, le=1e6)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Betas = Annotated[list[Annotated[float, Field(ge=0.0, lt=1.0)]], Field(min_length=2, max_length=2)]


class DiscriminatorConfig(Model):
    """The adversary: a network that learns to tell real images from made ones."""

    channels: Width = 32
    """Channels at full size; doubled with each halving of the image, up to eight times."""
    r1: Weight = 3.0
    """Gamma of the R1 penalty on real images (Mescheder et al. 2018); 0 has none."""
    r1_every: Count = 4
    """The penalty is computed in one of so many steps, and counts as many times more there."""
    lr_factor: Annotated[float, Field(gt=0.0, le=1000.0)] = 1.0
    """The discriminator's learning rate as a multiple of the stage's."""
    every: Count = 1
    """The discriminator learns in one of so many steps."""
    keep: bool = False
    """Write the discriminator into saved models, which sampling does not need."""

    def advice(self) -> Iterator[str]:
        """What an expert would warn of."""
        if self.r1 == 0:
            yield "without the R1 penalty GAN training need not converge; set discriminator.r1 to 3"
        elif self.r1_every > 32:
            yield f"an R1 penalty in one of {self.r1_every} steps acts in jerks; 16 is usual"


class GanConfig(GeneratorConfig):
    """A residual GAN: an image from a noise vector and, where there are labels, a label."""

    paired: ClassVar[bool] = False

    noise: Width = 32
    """Length of the noise vector."""
    channels: Width = 32
    """Channels at full size; doubled with each halving of the image, up to eight times."""
    conditional: bool = True
    """Use the labels where the data have any."""
    every: Count = 1
    """The generator learns in one of so many steps, so that the discriminator is ahead."""
    betas: Betas = [0.0, 0.99]
    """Of Adam, for generator and discriminator: momentum makes a GAN circle."""
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    """The adversary, and how it learns."""

    def advice(self, output: ImageShape, num_classes: int | None) -> Iterator[str]:
        """What an expert would warn of before training."""
        yield from self.discriminator.advice()
        grid = smallest(output.size)
        if grid > 8:
            yield (
                f"{output.size} is not a small number doubled a few times, so that the network "
                f"starts at {grid}x{grid}; such images are better made by an upsampler"
            )


class SrGanConfig(UpsamplerConfig):
    """Super-resolution that looks sharp: pixels and an adversary (Ledig et al. 2017)."""

    heeds_paired: ClassVar[bool] = True

    channels: Width = 48
    """Channels at the upstream image's size."""
    blocks: Annotated[int, Field(ge=0, le=1000)] = 4
    """Residual blocks at that size."""
    pixel: Literal["l1", "mse"] = "l1"
    """How the image is held against its target."""
    adversarial: Weight = 0.005
    """The weight of the adversarial loss; that of the pixels is 1."""
    every: Count = 1
    """The upsampler learns in one of so many steps, so that the discriminator is ahead."""
    betas: Betas = [0.0, 0.99]
    """Of Adam, for upsampler and discriminator."""
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    """The adversary, and how it learns."""

    def advice(self, output: ImageShape, num_classes: int | None) -> Iterator[str]:
        """What an expert would warn of before training."""
        yield from self.discriminator.advice()
        if self.adversarial > 0.1:
            yield (
                f"an adversarial loss of weight {self.adversarial:g} drowns the pixels and paints "
                "what is not there; 0.001 to 0.02 is usual"
            )


def smallest(size: int) -> int:
    """The grid that an image of ``size`` pixels begins as: halved to 4 or less, or until odd."""
    while size > 4 and size % 2 == 0:
        size //= 2
    return size
