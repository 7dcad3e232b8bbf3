"""The config of ``interpolate.v1``. Free of torch."""

from __future__ import annotations

from typing import ClassVar, Literal

from cascadezoo.spec.configs import UpsamplerConfig

__all__ = ["InterpolateConfig"]


class InterpolateConfig(UpsamplerConfig):
    """An interpolation without parameters: what an upsampler must be better than."""

    parameterless: ClassVar[bool] = True

    interpolation: Literal["bicubic", "bilinear", "nearest"] = "bicubic"
    """How pixels between those of the upstream image are made; bicubic (Keys 1981) is sharpest."""
