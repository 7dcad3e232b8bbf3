"""The config of ``pixelshuffle.v1``. Free of torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cascadezoo.spec.configs import Width
from cascadezoo.stages.shared_config import ResidualUpsamplerConfig

__all__ = ["PixelShuffleConfig"]


class PixelShuffleConfig(ResidualUpsamplerConfig):
    """Sub-pixel convolution (Shi et al. 2016) that predicts what an interpolation lacks."""

    widths: ClassVar[tuple[str, ...]] = ("hidden",)

    factor: Literal[2, 3, 4, 8] = 2
    """How many times larger the image becomes in each direction; 4 and 8 are done in steps of 2."""

    hidden: Width = 256
    """Width of the residual blocks, which work at the upstream resolution."""

    blocks: Annotated[int, Field(ge=0, le=256)] = 2
    """How many residual blocks; each looks around through a 3x3 bottleneck of `hidden` / 4."""
