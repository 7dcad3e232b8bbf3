"""The config of ``autoencoder-kl.v1``. Free of torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, ValidationError, model_validator

from cascadezoo import ConfigError, DecoderConfig, ImageShape
from cascadezoo.errors import CascadezooError
from cascadezoo_diffusers.reading import read_autoencoder
from cascadezoo_diffusers.source import CONFIG, Source

__all__ = ["ARCHITECTURE", "PretrainedAutoencoderKLConfig"]

_Width = Annotated[int, Field(ge=1, le=65536)]
_Channels = Annotated[int, Field(ge=1, le=1024)]
_Statistics = Annotated[
    list[Annotated[float, Field(ge=-1e6, le=1e6)]], Field(min_length=1, max_length=1024)
]

ARCHITECTURE = (
    "in_channels",
    "out_channels",
    "block_out_channels",
    "layers_per_block",
    "latent_channels",
    "norm_num_groups",
    "scaling_factor",
    "shift_factor",
    "latents_mean",
    "latents_std",
    "use_quant_conv",
    "use_post_quant_conv",
    "mid_block_add_attention",
)
"""The fields that a diffusers ``config.json`` has as well, under the same names."""


class PretrainedAutoencoderKLConfig(DecoderConfig):
    """A pretrained AutoencoderKL of diffusers (Rombach et al. 2022), never trained further.

    Fields of the architecture that are not given are taken from the source's `config.json` where
    the source is a local folder, and are those of Stable Diffusion 1 where it is on the Hub.
    """

    frozen: ClassVar[bool] = True

    source: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """What the weights are loaded from when a cascade is built: a folder that diffusers saved, or
    `org/name` or `org/name@revision` on the Hub. A trained model has them itself and needs none."""

    revision: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    """Branch, tag or commit on the Hub; may stand in `source` instead."""

    subfolder: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    """The folder inside `source`; that of a whole pipeline, `vae`, is found by itself."""

    in_channels: _Channels = 3
    """Channels of the image that is encoded."""

    out_channels: _Channels = 3
    """Channels of the image that is decoded."""

    block_out_channels: Annotated[list[_Width], Field(min_length=1, max_length=8)] = [
        128,
        256,
        512,
        512,
    ]
    """Width of each level; each but the first halves the resolution."""

    layers_per_block: Annotated[int, Field(ge=1, le=64)] = 2
    """Residual blocks per level of the encoder; the decoder has one more."""

    latent_channels: _Channels = 4
    """Channels of the latents."""

    norm_num_groups: _Width = 32
    """Groups of every normalisation; divides each width."""

    scaling_factor: Annotated[float, Field(gt=0.0, le=1e6)] = 0.18215
    """What latents are multiplied by, so that they have a standard deviation of about 1."""

    shift_factor: Annotated[float, Field(ge=-1e6, le=1e6)] | None = None
    """What is taken from latents before they are multiplied."""

    latents_mean: _Statistics | None = None
    """Mean of each latent channel, taken from it before it is multiplied."""

    latents_std: _Statistics | None = None
    """Standard deviation of each latent channel, which it is divided by."""

    use_quant_conv: bool = True
    """Whether a 1x1 convolution follows the encoder."""

    use_post_quant_conv: bool = True
    """Whether a 1x1 convolution precedes the decoder."""

    mid_block_add_attention: bool = True
    """Self-attention at the lowest resolution."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        wrong = [w for w in self.block_out_channels if w % self.norm_num_groups]
        if wrong:
            raise ValueError(
                f"norm_num_groups is {self.norm_num_groups}, which does not divide the width "
                f"{wrong[0]} of block_out_channels"
            )
        if (self.latents_mean is None) != (self.latents_std is None):
            raise ValueError("latents_mean and latents_std go together: give both or neither")
        for name in ("latents_mean", "latents_std"):
            rows = getattr(self, name)
            if rows is not None and len(rows) != self.latent_channels:
                raise ValueError(
                    f"{name} has {len(rows)} numbers for {self.latent_channels} latent_channels"
                )
        if self.latents_std is not None and min(self.latents_std) <= 0:
            raise ValueError("latents_std must be above 0")
        if self.revision is not None and self.source is not None and "@" in self.source:
            raise ValueError("the revision is given twice: in source and in revision")
        return self

    @property
    def factor(self) -> int:
        """The factor between the size of the image and of the latents."""
        return int(2 ** (len(self.block_out_channels) - 1))

    @property
    def place(self) -> Source | None:
        """Where the weights are loaded from."""
        if self.source is None:
            return None
        return Source(self.source, self.revision)

    def fit(self, output: ImageShape) -> Self:
        """Fill the architecture in from a local source, and hold it against the images.

        Raises:
            ConfigError: the source is a path that leads nowhere or to something else; the images
                have other channels or are too small.
        """
        fitted = self._filled_in()
        for field in ("in_channels", "out_channels"):
            if getattr(fitted, field) != output.channels:
                raise ConfigError(
                    field,
                    f"is {getattr(fitted, field)}, but the images have {output.channels}: choose "
                    "an autoencoder of such images, or set data.channels",
                    code="channels",
                )
        most = (2 * output.size - 1).bit_length()
        if len(fitted.block_out_channels) > most:
            raise ConfigError(
                "block_out_channels",
                f"has {len(fitted.block_out_channels)} levels, but {most} bring {output.size} "
                "pixels down to one already",
                code="levels",
            )
        return fitted

    def upstream_shape(self, output: ImageShape) -> ImageShape:
        """The latents; images whose size ``factor`` does not divide are padded."""
        size = -(-output.size // self.factor)
        return ImageShape(self.latent_channels, size, latent=True)

    def advice(self, output: ImageShape, num_classes: int | None) -> Iterable[str]:
        """Warn of weights that come from nowhere and of images far from what it was trained on."""
        yield from super().advice(output, num_classes)
        if self.source is None:
            yield (
                "source is not given: a cascade that is built from this spec has no weights for "
                "it; set source to a folder or to org/name on the Hub"
            )
        latents = self.upstream_shape(output)
        if latents.size < 8 and self.factor >= 8:
            yield (
                f"its latents are {latents.size}x{latents.size}: published autoencoders were "
                "trained on images of 256x256 and more, and reconstruct small ones badly"
            )

    def _filled_in(self) -> Self:
        place = self.place
        open_fields = [name for name in ARCHITECTURE if name not in self.model_fields_set]
        # A resolved spec has every field, and its source may be on another machine.
        if place is None or not open_fields or (place.folder is None and not place.is_path):
            return self
        try:
            _, found = read_autoencoder(place, self.subfolder)
        except CascadezooError as error:
            hint = f"; {error.hint}" if error.hint else ""
            raise ConfigError("source", f"{error.what}{hint}", code="source") from error
        given: dict[str, Any] = self.model_dump(exclude_unset=True)
        try:
            taken = {name: getattr(found, name) for name in open_fields}
            return type(self).model_validate({**taken, **given})
        except ValidationError as error:
            row = error.errors()[0]
            field = ".".join(str(part) for part in row["loc"]) or "config"
            message = f"its {CONFIG} cannot be used: {field}: {row['msg']}"
            raise ConfigError("source", message, code="source") from error
