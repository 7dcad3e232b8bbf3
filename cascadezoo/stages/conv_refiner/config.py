"""The config of ``conv-refiner.v1``. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field, field_validator

from cascadezoo.spec.configs import RefinerConfig, Width
from cascadezoo.stages.shared_config import ResidualScale

__all__ = ["ConvRefinerConfig"]


class ConvRefinerConfig(RefinerConfig):
    """A few plain convolutions that predict a correction (Kim et al. 2016)."""

    widths: ClassVar[tuple[str, ...]] = ("hidden",)
    repeated: ClassVar[Mapping[str, int]] = {"layers": 2}

    hidden: Width = 64
    """Width between the convolutions."""

    layers: Annotated[int, Field(ge=2, le=256)] = 4
    """Number of convolutions, including the first and the last."""

    kernel: Annotated[int, Field(ge=1, le=31)] = 3
    """Height and width of the kernels in pixels, odd."""

    residual_scale: ResidualScale = 1.0
    """Factor of the network's output before it is added to the image."""

    @field_validator("kernel")
    @classmethod
    def _is_odd(cls, kernel: int) -> int:
        if kernel % 2 == 0:
            raise ValueError(f"is {kernel}, but must be odd")
        return kernel
