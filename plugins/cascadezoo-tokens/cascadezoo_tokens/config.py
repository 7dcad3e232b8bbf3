"""The configs of the token stages. Free of torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from cascadezoo import ConfigError, DecoderConfig, GeneratorConfig, ImageShape, Option

__all__ = ["MOST_TOKENS", "ArPriorConfig", "VqAutoencoderConfig"]

MOST_TOKENS = 16_384
"""Longest sequence of the prior."""

Width = Annotated[int, Field(ge=1, le=65536)]
Count = Annotated[int, Field(ge=1, le=1000)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class VqAutoencoderConfig(DecoderConfig):
    """Vector-quantised autoencoder (van den Oord et al. 2017) with an averaged codebook.

    It is trained first, in a separate phase. A prior then learns to draw its tokens.
    """

    widths: ClassVar[tuple[str, ...]] = ("channels",)
    repeated: ClassVar[Mapping[str, int]] = {"blocks": 1}

    tokens: Annotated[int, Field(ge=2, le=65536)] = 128
    """Number of codes: the size of the vocabulary."""

    code_size: Width = 16
    """Length of a code."""

    channels: Width = 16
    """Channels at full size; doubled at each level, up to four times."""

    levels: Annotated[int, Field(ge=1, le=6)] = 2
    """How often the image is halved: an image of 28 pixels and 2 levels has 7x7 tokens."""

    blocks: Count = 1
    """Residual blocks per level, in the encoder and in the decoder."""

    commitment: Annotated[float, Field(ge=0.0, le=100.0)] = 0.25
    """Weight of the distance between latents and their codes."""

    decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.99
    """The share of the codebook's running means that each step keeps."""

    revive: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.03
    """A code that is used less often than this share of the mean is moved beside a code that is
    used more often; 0 moves none."""

    reconstruction: Literal["mse", "l1"] = "mse"
    """Reconstruction error: squared or absolute."""

    @property
    def factor(self) -> int:
        """The factor between the size of the image and of the tokens."""
        return int(2**self.levels)

    def upstream_shape(self, output: ImageShape) -> ImageShape:
        """One token for each ``factor`` x ``factor`` pixels.

        Raises:
            ConfigError: ``factor`` does not divide the size of the image.
        """
        if output.size % self.factor:
            raise ConfigError(
                "levels",
                f"is {self.levels}, but {output.size} pixels cannot be halved that often",
                code="levels",
            )
        return ImageShape(1, output.size // self.factor, latent=True, tokens=self.tokens)

    def advice(self, output: ImageShape, num_classes: int | None) -> Iterator[str]:
        """Warn about a codebook that can collapse, and about long sequences."""
        if self.revive == 0:
            yield "revive is 0: codes that are not used at the start may never be used"
        side = output.size // self.factor
        if side > 32:
            yield f"a prior has to draw {side}x{side} tokens one after another; add a level"


class ArPriorConfig(GeneratorConfig):
    """Transformer that predicts each token from those before it, in raster order."""

    makes_tokens: ClassVar[bool] = True
    sampling_options: ClassVar[Mapping[str, Option]] = {
        "temperature": Option(
            float, 1e-3, 100.0, "What logits are divided by; below 1 favours likely tokens."
        ),
        "top_k": Option(int, 0, 65536, "Draw only from this number of tokens; 0 from all."),
    }
    widths: ClassVar[tuple[str, ...]] = ("width",)
    repeated: ClassVar[Mapping[str, int]] = {"blocks": 1}

    width: Width = 128
    """Width of the transformer."""

    blocks: Count = 4
    """Number of blocks."""

    heads: Annotated[int, Field(ge=1, le=1024)] = 4
    """Attention heads of each block; they divide the width."""

    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """Dropout of attention and of the outputs of each block."""

    conditional: bool = True
    """Whether to use the labels of the data, if any."""

    label_drop: Share = 0.1
    """Share of the labels that training replaces by none, for guidance."""

    guidance: Annotated[float, Field(ge=0.0, le=1000.0)] = 1.0
    """Scale of classifier-free guidance on the logits; 1 is none."""

    temperature: Annotated[float, Field(ge=1e-3, le=100.0)] = 1.0
    """What the logits are divided by: below 1, likely tokens become more likely."""

    top_k: Annotated[int, Field(ge=0, le=65536)] = 0
    """Draw only from this number of likeliest tokens; 0 draws from all."""

    def width_step(self, field: str) -> int:
        """The heads, which divide the width."""
        return self.heads

    def fit(self, output: ImageShape) -> Self:
        """Fill in ``size``; check the length of the sequence and the heads.

        Raises:
            ConfigError: the sequence is too long, or the heads do not divide the width.
        """
        length = output.channels * output.size**2
        if length > MOST_TOKENS:
            raise ConfigError(
                "", f"cannot draw {length} tokens; {MOST_TOKENS} is the most", code="length"
            )
        if self.width % self.heads:
            raise ConfigError(
                "heads", f"is {self.heads}, which does not divide {self.width}", code="heads"
            )
        if self.guidance != 1 and self.label_drop == 0:
            raise ConfigError(
                "guidance", "needs a label_drop above 0, or set it to 1", code="guidance"
            )
        return super().fit(output)
