"""The config of ``resnet-refiner.v1``. Free of torch."""

from __future__ import annotations

from typing import ClassVar

from cascadezoo.spec.configs import Width
from cascadezoo.stages.shared_config import Count, Dropout, ResidualRefinerConfig

__all__ = ["ResNetRefinerConfig"]


class ResNetRefinerConfig(ResidualRefinerConfig):
    """Residual blocks with normalisation (He et al. 2016) that predict a correction."""

    widths: ClassVar[tuple[str, ...]] = ("hidden",)

    hidden: Width = 64
    """Width of the residual blocks, which work at full resolution."""

    blocks: Count = 3
    """How many residual blocks; each has two 3x3 convolutions."""

    dropout: Dropout = 0.0
    """Dropout in every residual block."""
