"""The config of ``interpolate.v1``. Free of torch."""

from __future__ import annotations

from typing import ClassVar, Literal

from cascadezoo.spec.configs import UpsamplerConfig

__all__ = ["InterpolateConfig"]


class InterpolateConfig(UpsamplerConfig):
    """An interpolation without parameters: the baseline for upsamplers."""

    parameterless: ClassVar[bool] = True

    interpolation: Literal["bicubic", "bilinear", "nearest"] = "bicubic"
    """The interpolation method; bicubic (Keys 1981) is sharpest."""
