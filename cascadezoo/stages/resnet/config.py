"""The config of ``resnet.v1``. Free of torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import Field

from cascadezoo.spec.configs import ConfigError, GeneratorConfig, ImageShape, Width
from cascadezoo.stages.shared_config import Count, Dropout

__all__ = ["ResNetConfig"]


class ResNetConfig(GeneratorConfig):
    """A residual network (He et al. 2016) from a noise image to an image, in one pass.

    It has no adversary. It learns by implicit maximum likelihood estimation (Li & Malik 2018): of
    `candidates` images that it makes of fresh noise, the one nearest to a training image is drawn
    nearer to it.
    """

    widths: ClassVar[tuple[str, ...]] = ("channels",)

    channels: Width = 64
    """Width of the residual blocks below full resolution; half of it at full resolution."""

    blocks: Count = 2
    """Residual blocks at the lowest resolution; one more after each doubling."""

    halvings: Annotated[int, Field(ge=0, le=8)] = 2
    """How often the noise image is halved before the residual blocks: at 4x4 a block sees the
    whole of it. Sizes that cannot be halved so often are padded."""

    candidates: Annotated[int, Field(ge=1, le=1024)] = 10
    """Images made of fresh noise for each training image, of which the nearest one learns. With
    one the network learns the mean image; more give more variety, and each costs a forward."""

    conditional: bool = True
    """Whether labels are used where the data have them."""

    dropout: Dropout = 0.0
    """Dropout in every residual block."""

    def fit(self, output: ImageShape) -> Self:
        """Check that there is something left to halve.

        Raises:
            ConfigError: more halvings than bring the image down to one pixel.
        """
        fitted = super().fit(output)
        most = (output.size - 1).bit_length()
        if self.halvings > most:
            raise ConfigError(
                "halvings",
                f"is {self.halvings}, but {most} bring {output.size} pixels down to one already",
                code="levels",
            )
        return fitted
