"""Config fields that several stages share. Free of torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, ValidationInfo, field_validator

from cascadezoo.nn.sizes import unet_resolutions
from cascadezoo.spec.configs import (
    ConfigError,
    GeneratorConfig,
    ImageShape,
    Probability,
    StageConfig,
    UpsamplerConfig,
    Width,
)

__all__ = [
    "ConditionalConfig",
    "ConditionalGeneratorConfig",
    "Count",
    "Dropout",
    "Guidance",
    "ResidualScale",
    "SuperResolutionConfig",
    "UNetConfig",
    "require_heads",
    "require_patches",
]

Count = Annotated[int, Field(ge=1, le=256)]
Dropout = Annotated[float, Field(ge=0.0, lt=1.0)]
Guidance = Annotated[float, Field(ge=0.0, le=1000.0)]
Sigma = Annotated[float, Field(gt=0.0, le=2.0)]
ResidualScale = Annotated[float, Field(gt=0.0, le=100.0)]


def require_heads(heads: int, features: int) -> None:
    """Check that attention heads divide the width of a token.

    Raises:
        ValueError: they do not.
    """
    if features % heads:
        raise ValueError(f"is {heads}, which does not divide {features} features")


def require_patches(patch_size: int, size: int) -> None:
    """Check that patches tile an image of this height and width.

    Raises:
        ConfigError: ``patch_size`` does not divide the size.
    """
    if size % patch_size:
        raise ConfigError(
            "patch_size",
            f"is {patch_size}, which does not divide {size} pixels",
            code="not-divisible",
        )


class ConditionalConfig(StageConfig):
    """Fields of a stage that is conditioned on labels, if the data have labels."""

    conditional: bool = True
    """Whether to use the labels of the data, if any."""

    label_drop: Probability = 0.1
    """Share of the training images without label. Guidance needs them to learn an unconditional
    prediction."""

    guidance: Guidance = 1.0
    """Scale of classifier-free guidance in sampling: 1 is none, 0 ignores the label. Larger values
    follow the label more closely and reduce variety. No effect on data without labels."""

    guidance_interval: Annotated[list[Probability], Field(min_length=2, max_length=2)] = [0.0, 1.0]
    """Lowest and highest noise level with guidance (Kynkaanniemi et al. 2024): 0 is the clean
    image, 1 is pure noise. Other levels use the plain conditional prediction."""

    @field_validator("guidance_interval")
    @classmethod
    def _check_interval(cls, interval: list[float]) -> list[float]:
        if interval[0] >= interval[1]:
            raise ValueError(f"is {interval}; the first level must be below the second")
        return interval

    def advice(self, output: ImageShape, num_classes: int | None) -> Iterable[str]:
        """Warn about guidance with an untrained unconditional prediction."""
        yield from super().advice(output, num_classes)
        labelled = self.conditional and num_classes is not None
        if labelled and self.guidance != 1 and self.label_drop == 0:
            yield (
                f"guidance is {self.guidance:g} but label_drop is 0, so the unconditional "
                "prediction that guidance needs is never trained; set label_drop to 0.1 or "
                "guidance to 1"
            )


class ConditionalGeneratorConfig(ConditionalConfig, GeneratorConfig):
    """Base config of a generator that is conditioned on labels, if the data have labels."""


class UNetConfig(StageConfig):
    """Fields of a stage with a U-Net."""

    widths: ClassVar[tuple[str, ...]] = ("channels",)
    repeated: ClassVar[Mapping[str, int]] = {"blocks": 1}

    channels: Width = 32
    """Width of the U-Net's first level."""

    multipliers: Annotated[
        list[Annotated[int, Field(ge=1, le=64)]], Field(min_length=1, max_length=8)
    ] = [1, 2, 2]
    """Width of each level as a multiple of `channels`; each but the first halves the resolution."""

    blocks: Count = 1
    """Residual blocks per level, in the encoder and in the decoder of the U-Net."""

    attention: list[Annotated[int, Field(ge=1)]] = []
    """Resolutions (height of a level in pixels) with self-attention after each residual block."""

    middle_attention: bool = False
    """Self-attention at the lowest resolution, between encoder and decoder."""

    heads: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Attention heads; None uses one for every 32 channels."""

    dense_skips: bool = False
    """Add skip connections for every activation of the encoder (Ho et al. 2020), not only for
    the outputs of blocks."""

    scale_shift: bool = True
    """Let time and label scale and shift a block's second normalisation (Dhariwal & Nichol 2021)
    instead of adding them before it (Ho et al. 2020)."""

    dropout: Dropout = 0.0
    """Dropout in every residual block."""

    pad_to: Annotated[int, Field(ge=1, le=65536)] | None = None
    """Pad images to at least this height and width inside the network, by reflection; None pads
    only as far as the levels need. For small latents, which few levels would reduce to a pixel."""

    label_conditioning: Literal["embedding", "concat", "cross-attention"] = "embedding"
    """How the label enters the network: added to the time embedding, as further input channels,
    or by cross-attention in levels with attention."""

    def fit(self, output: ImageShape) -> Self:
        """Check that the resolutions with attention exist.

        Raises:
            ConfigError: no level has a resolution of ``attention``, or ``heads`` does not divide
                the channels of a level with attention.
        """
        fitted = super().fit(output)
        size = max(output.size, self.pad_to or 0)
        known = unet_resolutions(size, len(self.multipliers))
        for resolution in self.attention:
            if resolution not in known:
                levels = ", ".join(map(str, known))
                raise ConfigError(
                    "attention",
                    f"has {resolution}, but the levels of the U-Net are at {levels}",
                    code="no-level",
                )
        self._check_heads(known)
        return fitted

    def width_step(self, field: str) -> int:
        """The number of heads, which must divide the channels."""
        return self.heads or 1

    def _check_heads(self, resolutions: list[int]) -> None:
        if self.heads is None:
            return
        levels = zip(resolutions, self.multipliers, strict=True)
        attending = [m for resolution, m in levels if resolution in self.attention]
        if self.middle_attention or self.label_conditioning == "cross-attention":
            attending.append(self.multipliers[-1])
        for width in (self.channels * multiplier for multiplier in attending):
            if width % self.heads:
                raise ConfigError(
                    "heads",
                    f"is {self.heads}, which does not divide the {width} channels of the attention",
                    code="not-divisible",
                )


class SuperResolutionConfig(ConditionalConfig, UpsamplerConfig):
    """Fields of an upsampler that is conditioned on the enlarged upstream image (CDM)."""

    interpolation: Literal["bicubic", "bilinear", "nearest"] = "bilinear"
    """How the upstream image is enlarged before it enters the network."""

    augmentation: Literal["none", "gaussian", "blur"] = "gaussian"
    """Conditioning augmentation (Ho et al. 2021): noise of a random level, which is an input of
    the network, or a blur by a 3x3 Gaussian kernel of a random width."""

    blur_probability: Probability = 0.5
    """`blur`: the share of blurred examples."""

    blur_sigma: Annotated[list[Sigma], Field(min_length=2, max_length=2)] = [0.4, 0.6]
    """`blur`: the smallest and the largest standard deviation in pixels (Ho et al. 2021, table 4a,
    compares largest ones of 0.6, 0.8 and 1.0)."""

    s_max: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """`gaussian`: the largest trained noise level. Levels go from 0, clean, to 1, pure
    noise: the signal's rate is cos(pi / 2 * s), the noise's sin(pi / 2 * s)."""

    s_min: Probability = 0.0
    """`gaussian`: the smallest trained noise level. `s_min` = `s_max` trains a single level (Ho et
    al. 2021, table 2b)."""

    s: Annotated[Probability, Field(validate_default=True)] = 0.0
    """`gaussian`: the noise level in sampling, from `s_min` to `s_max`; see `cascadezoo tune`."""

    truncated: bool = False
    """`gaussian`: stop the previous stage at level `s`, and add no noise to its image."""

    @field_validator("blur_sigma")
    @classmethod
    def _check_sigma(cls, sigma: list[float]) -> list[float]:
        if sigma[0] > sigma[1]:
            raise ValueError(f"is {sigma[0]:g} to {sigma[1]:g}; put the smaller one first")
        return sigma

    @field_validator("s_min")
    @classmethod
    def _check_s_min(cls, s_min: float, info: ValidationInfo) -> float:
        if s_min > info.data.get("s_max", 1.0):
            raise ValueError(f"is {s_min:g}, above s_max ({info.data['s_max']:g})")
        return s_min

    @field_validator("s")
    @classmethod
    def _check_s(cls, s: float, info: ValidationInfo) -> float:
        if info.data.get("augmentation") != "gaussian" and s > 0:
            raise ValueError(
                f"is {s:g}, but only the gaussian augmentation trains noise levels above 0"
            )
        least, most = info.data.get("s_min", 0.0), info.data.get("s_max", 1.0)
        if info.data.get("augmentation") == "gaussian" and not least <= s <= most:
            raise ValueError(f"is {s:g}, outside the trained range of {least:g} to {most:g}")
        return s

    @field_validator("truncated")
    @classmethod
    def _check_truncated(cls, truncated: bool, info: ValidationInfo) -> bool:
        if truncated and info.data.get("augmentation") != "gaussian":
            raise ValueError("is set, but needs the gaussian augmentation")
        return truncated

    def fit(self, output: ImageShape) -> Self:
        """Check that the blur augmentation can blur the upstream image.

        Raises:
            ConfigError: the upstream image is a single pixel.
        """
        if self.augmentation == "blur" and output.size < 2 * self.factor:
            raise ConfigError(
                "augmentation",
                "is blur, but the upstream image is a single pixel",
                code="single-pixel",
            )
        return super().fit(output)

    def check_upstream(self, upstream: StageConfig) -> None:
        """Check that the stage before this one can stop early for truncated sampling.

        Raises:
            ConfigError: it cannot.
        """
        super().check_upstream(upstream)
        if self.truncated and not upstream.stops:
            raise ConfigError(
                "truncated",
                "is set, but the previous stage cannot stop at a noise level; use a diffusion or "
                "flow there, or omit truncated",
                code="no-stop",
            )
