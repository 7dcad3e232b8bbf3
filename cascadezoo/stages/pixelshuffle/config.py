"""The config of ``pixelshuffle.v1``. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cascadezoo.spec.configs import UpsamplerConfig, Width
from cascadezoo.stages.shared_config import ResidualScale

__all__ = ["PixelShuffleConfig"]


class PixelShuffleConfig(UpsamplerConfig):
    """Sub-pixel convolution (Shi et al. 2016) that predicts the residual to an interpolation."""

    widths: ClassVar[tuple[str, ...]] = ("hidden",)
    repeated: ClassVar[Mapping[str, int]] = {"blocks": 1}

    factor: Literal[2, 3, 4, 8] = 2
    """The enlargement in each direction; 4 and 8 use steps of 2."""

    hidden: Width = 256
    """Width of the residual blocks, which work at the upstream resolution."""

    blocks: Annotated[int, Field(ge=0, le=256)] = 2
    """Number of residual blocks; each has a 3x3 bottleneck of `hidden` / 4 channels."""

    residual_scale: ResidualScale = 1.0
    """Factor of the network's output before it is added to the interpolation."""

    interpolation: Literal["bicubic", "bilinear", "nearest"] = "bicubic"
    """The fixed interpolation that the network's output is added to."""
