"""The config of ``resnet.v1``. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Self

from pydantic import Field

from cascadezoo.spec.configs import ConfigError, GeneratorConfig, ImageShape, Width
from cascadezoo.stages.shared_config import Count, Dropout

__all__ = ["ResNetConfig"]


class ResNetConfig(GeneratorConfig):
    """A residual network (He et al. 2016) from a noise image to an image, in one pass.

    It has no adversary. It learns by implicit maximum likelihood estimation (Li & Malik 2018): it
    generates `candidates` images from fresh noise, and the one nearest to a training image is
    moved closer to it.
    """

    widths: ClassVar[tuple[str, ...]] = ("channels",)
    repeated: ClassVar[Mapping[str, int]] = {"blocks": 1, "candidates": 2}

    channels: Width = 64
    """Width of the residual blocks below full resolution; half of it at full resolution."""

    blocks: Count = 2
    """Residual blocks at the lowest resolution; one more after each doubling."""

    halvings: Annotated[int, Field(ge=0, le=8)] = 2
    """Number of times the noise image is halved before the residual blocks; at 4x4 a block sees
    all of it. Other sizes are padded."""

    candidates: Annotated[int, Field(ge=1, le=1024)] = 10
    """Number of images from fresh noise for each training image; only the nearest one learns.
    With one, the network learns the mean image. More give more variety; each costs a forward
    pass."""

    conditional: bool = True
    """Whether to use the labels of the data, if any."""

    dropout: Dropout = 0.0
    """Dropout in every residual block."""

    def fit(self, output: ImageShape) -> Self:
        """Check the number of halvings.

        Raises:
            ConfigError: the image is a single pixel after fewer halvings.
        """
        fitted = super().fit(output)
        most = (output.size - 1).bit_length()
        if self.halvings > most:
            raise ConfigError(
                "halvings",
                f"is {self.halvings}, but {most} halvings already reduce {output.size} pixels "
                "to one",
                code="levels",
            )
        return fitted
