"""The config of ``resnet-refiner.v1``. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from cascadezoo.spec.configs import RefinerConfig, Width
from cascadezoo.stages.shared_config import Count, Dropout, ResidualScale

__all__ = ["ResNetRefinerConfig"]


class ResNetRefinerConfig(RefinerConfig):
    """Residual blocks with normalisation (He et al. 2016) that predict a correction."""

    widths: ClassVar[tuple[str, ...]] = ("hidden",)
    repeated: ClassVar[Mapping[str, int]] = {"blocks": 1}

    hidden: Width = 64
    """Width of the residual blocks, which work at full resolution."""

    blocks: Count = 3
    """Number of residual blocks; each has two 3x3 convolutions."""

    dropout: Dropout = 0.0
    """Dropout in every residual block."""

    residual_scale: ResidualScale = 1.0
    """Factor of the network's output before it is added to the image."""
