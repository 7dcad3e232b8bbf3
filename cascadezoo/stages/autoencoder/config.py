"""The config of ``autoencoder.v1``. Free of torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from cascadezoo.nn.sizes import multiple_of
from cascadezoo.spec.configs import ConfigError, DecoderConfig, ImageShape, Probability, Width
from cascadezoo.stages.shared_config import Count, Dropout

__all__ = ["AutoencoderConfig"]


class AutoencoderConfig(DecoderConfig):
    """Variational autoencoder (Kingma & Welling 2014) as in latent diffusion (Rombach 2022).

    It is trained first, in a separate phase. Earlier stages then learn to generate its latents.
    """

    widths: ClassVar[tuple[str, ...]] = ("channels",)
    repeated: ClassVar[Mapping[str, int]] = {"blocks": 1}

    latent_channels: Annotated[int, Field(ge=1, le=1024)] = 4
    """Channels of the latents."""

    channels: Width = 32
    """Width of the first level, which works at full resolution."""

    multipliers: Annotated[
        list[Annotated[int, Field(ge=1, le=64)]], Field(min_length=1, max_length=8)
    ] = [1, 2, 4]
    """Width of each level as a multiple of `channels`; each but the first halves the resolution."""

    halve_last: bool = False
    """Halve the resolution after the last level too, so that only the blocks around the attention
    work at the lowest resolution."""

    blocks: Count = 1
    """Residual blocks per level, in the encoder and in the decoder."""

    attention: bool = True
    """Self-attention at the lowest resolution."""

    dropout: Dropout = 0.0
    """Dropout in every residual block."""

    kl_weight: Annotated[float, Field(ge=0.0, le=1000.0)] = 1e-5
    """Weight of the KL divergence of the latents from a standard normal. The divergence is in nats,
    summed over an image's latents, while the reconstruction error is a mean over pixels. Use a
    smaller weight for larger images (1e-6 at 256x256, 1e-4 at 28x28 with few latents)."""

    kl_warmup: Probability = 0.0
    """Share of the phase over which the weight rises linearly from 0."""

    reconstruction: Literal["mse", "l1"] = "mse"
    """Reconstruction error: squared or absolute."""

    @property
    def factor(self) -> int:
        """The factor between the size of the image and of the latents."""
        return int(2 ** (len(self.multipliers) - (0 if self.halve_last else 1)))

    def fit(self, output: ImageShape) -> Self:
        """Check the number of levels.

        Raises:
            ConfigError: the image cannot be halved that often.
        """
        most = (2 * output.size - 1).bit_length()
        if len(self.multipliers) + self.halve_last > most:
            raise ConfigError(
                "multipliers",
                f"has {len(self.multipliers)} levels, but {most} levels already reduce "
                f"{output.size} pixels to one",
                code="levels",
            )
        return self

    def upstream_shape(self, output: ImageShape) -> ImageShape:
        """The latents; images whose size ``factor`` does not divide are padded."""
        size = multiple_of(output.size, self.factor) // self.factor
        return ImageShape(self.latent_channels, size, latent=True)

    def advice(self, output: ImageShape, num_classes: int | None) -> Iterable[str]:
        """Warn about latents as large as the image and about settings without effect."""
        yield from super().advice(output, num_classes)
        latents = self.upstream_shape(output)
        values = latents.channels * latents.size**2
        pixels = output.channels * output.size**2
        if values >= pixels:
            yield (
                f"the latents ({latents.channels}x{latents.size}x{latents.size}) hold as many "
                f"numbers as the image ({output}); lower latent_channels or add a multiplier"
            )
        if self.kl_weight == 0:
            yield (
                "kl_weight is 0: nothing keeps the latents of similar images together, so small "
                "errors of a generator may decode to unrelated images; 1e-5 is usual"
            )
            if self.kl_warmup > 0:
                yield "kl_warmup has no effect because kl_weight is 0"
