"""The configs of ``dit.v1`` and ``dit-sr.v1``. Free of torch and timm."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, ClassVar, Self

from pydantic import Field, ValidationInfo, field_validator

from cascadezoo.spec.configs import ImageShape, StageConfig
from cascadezoo.stages.flow.config import FlowFields
from cascadezoo.stages.flow_sr.config import FlowResidualFields
from cascadezoo.stages.shared_config import (
    ConditionalGeneratorConfig,
    Count,
    Dropout,
    require_heads,
    require_patches,
)

__all__ = ["DiTConfig", "DiTFields", "DiTSRConfig"]

MANY_TOKENS = 4096
"""More tokens than this are worth a warning: attention costs their square."""


class DiTFields(StageConfig):
    """Fields of a stage with a diffusion transformer (Peebles & Xie 2023)."""

    widths: ClassVar[tuple[str, ...]] = ("features",)
    repeated: ClassVar[Mapping[str, int]] = {"blocks": 1}

    features: Annotated[int, Field(ge=4, le=2**31 - 4, multiple_of=4)] = 128
    """Width of a patch's token, a multiple of 4."""

    blocks: Count = 4
    """Number of transformer blocks."""

    heads: Annotated[int, Field(ge=1, le=4096)] = 4
    """Attention heads; must divide `features`."""

    patch_size: Annotated[int, Field(ge=1, le=1024)] = 2
    """Height and width of a patch in pixels; must divide the image's size. Half the size costs
    four times the tokens."""

    mlp_ratio: Annotated[float, Field(ge=1.0, le=64.0)] = 4.0
    """Width of the blocks' perceptrons as a multiple of `features`."""

    dropout: Dropout = 0.0
    """Dropout of attention and perceptron outputs."""

    @field_validator("heads")
    @classmethod
    def _divide_features(cls, heads: int, info: ValidationInfo) -> int:
        require_heads(heads, info.data.get("features", heads))
        return heads

    def width_step(self, field: str) -> int:
        """What the heads and the embedding of positions need: a multiple of heads and of 4."""
        return math.lcm(self.heads, 4)

    def fit(self, output: ImageShape) -> Self:
        """Check that patches tile the image.

        Raises:
            ConfigError: ``patch_size`` does not divide the size.
        """
        require_patches(self.patch_size, output.size)
        return super().fit(output)

    def advice(self, output: ImageShape, num_classes: int | None) -> Iterable[str]:
        """Warn about too many tokens."""
        yield from super().advice(output, num_classes)
        tokens = (output.size // self.patch_size) ** 2
        if tokens > MANY_TOKENS:
            yield (
                f"{tokens:,} patches attend to each other, which costs the square of their "
                "number; use a larger patch_size, or latents"
            )


class DiTConfig(FlowFields, DiTFields, ConditionalGeneratorConfig):
    """Rectified flow (Liu et al. 2023) on a diffusion transformer (Peebles & Xie 2023).

    It is conditioned on labels if available.
    """

    reflows: ClassVar[bool] = True


class DiTSRConfig(FlowResidualFields, DiTFields):
    """Super-resolution by rectified flow of the scaled residual, on a diffusion transformer.

    The flow is that of `flow-sr.v2`, the network that of `dit.v1`. It sees the enlarged upstream
    image, with the conditioning augmentation of CDM (Ho et al. 2021).
    """

    patch_size: Annotated[int, Field(ge=1, le=1024)] = 4
    """Height and width of a patch in pixels; must divide the image's size. Half the size costs
    four times the tokens."""
