"""The config of ``vit.v1``. Free of torch and timm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Self

from pydantic import Field, ValidationInfo, field_validator

from cascadezoo.spec.configs import ImageShape, RefinerConfig, Width
from cascadezoo.stages.shared_config import Dropout, ResidualScale, require_heads, require_patches

__all__ = ["ViTConfig"]


class ViTConfig(RefinerConfig):
    """Transformer blocks on patches (Dosovitskiy et al. 2021) that predict a correction."""

    widths: ClassVar[tuple[str, ...]] = ("features",)
    repeated: ClassVar[Mapping[str, int]] = {"blocks": 1}

    features: Width = 256
    """Width of a patch's token."""

    blocks: Annotated[int, Field(ge=1, le=256)] = 2
    """Number of transformer blocks."""

    heads: Annotated[int, Field(ge=1, le=4096)] = 8
    """Attention heads; must divide `features`."""

    patch_size: Annotated[int, Field(ge=1, le=1024)] = 4
    """Height and width of a patch in pixels; must divide the image's size."""

    mlp_ratio: Annotated[float, Field(ge=1.0, le=64.0)] = 4.0
    """Width of the blocks' perceptrons as a multiple of `features`."""

    dropout: Dropout = 0.0
    """Dropout of attention and perceptron outputs."""

    residual_scale: ResidualScale = 1.0
    """Factor of the network's output before it is added to the image."""

    @field_validator("heads")
    @classmethod
    def _divide_features(cls, heads: int, info: ValidationInfo) -> int:
        require_heads(heads, info.data.get("features", heads))
        return heads

    def width_step(self, field: str) -> int:
        """The number of heads, which must divide the features."""
        return self.heads

    def fit(self, output: ImageShape) -> Self:
        """Check that patches tile the image.

        Raises:
            ConfigError: ``patch_size`` does not divide the size.
        """
        require_patches(self.patch_size, output.size)
        return super().fit(output)
