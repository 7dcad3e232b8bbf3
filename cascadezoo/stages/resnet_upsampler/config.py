"""The config of ``resnet-upsampler.v1``. Free of torch."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from cascadezoo.spec.configs import Width
from cascadezoo.stages.shared_config import Dropout, ResidualUpsamplerConfig

__all__ = ["ResNetUpsamplerConfig"]


class ResNetUpsamplerConfig(ResidualUpsamplerConfig):
    """Residual blocks (He et al. 2016) at low, then at high resolution, over an interpolation.

    Between them stand resize convolutions, one for each prime factor of `factor`: nearest
    neighbours, then a 3x3 convolution, which builds no checkerboards (Odena et al. 2016).
    """

    widths: ClassVar[tuple[str, ...]] = ("hidden",)

    hidden: Width = 64
    """Width at the upstream resolution; half of it after the first enlargement."""

    blocks: Annotated[int, Field(ge=0, le=256)] = 2
    """Residual blocks at the upstream resolution."""

    fine_blocks: Annotated[int, Field(ge=0, le=256)] = 1
    """Residual blocks at the output's resolution, where each costs most."""

    dropout: Dropout = 0.0
    """Dropout in every residual block."""
