"""The config of ``resnet-upsampler.v1``. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cascadezoo.spec.configs import UpsamplerConfig, Width
from cascadezoo.stages.shared_config import Dropout, ResidualScale

__all__ = ["ResNetUpsamplerConfig"]


class ResNetUpsamplerConfig(UpsamplerConfig):
    """Residual blocks (He et al. 2016) at low and at high resolution, on top of an interpolation.

    Between them are resize convolutions, one for each prime factor of `factor`: nearest-neighbour
    interpolation, then a 3x3 convolution, which causes no checkerboards (Odena et al. 2016).
    """

    widths: ClassVar[tuple[str, ...]] = ("hidden",)
    repeated: ClassVar[Mapping[str, int]] = {"blocks": 1, "fine_blocks": 1}

    hidden: Width = 64
    """Width at the upstream resolution; half of it after the first enlargement."""

    blocks: Annotated[int, Field(ge=0, le=256)] = 2
    """Residual blocks at the upstream resolution."""

    fine_blocks: Annotated[int, Field(ge=0, le=256)] = 1
    """Residual blocks at the output resolution, where each costs most."""

    dropout: Dropout = 0.0
    """Dropout in every residual block."""

    residual_scale: ResidualScale = 1.0
    """Factor of the network's output before it is added to the interpolation."""

    interpolation: Literal["bicubic", "bilinear", "nearest"] = "bicubic"
    """The fixed interpolation that the network's output is added to."""
