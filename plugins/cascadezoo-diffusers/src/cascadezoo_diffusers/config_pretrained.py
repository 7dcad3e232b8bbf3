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
"""The fields with the names of diffusers' ``config.json``."""


class PretrainedAutoencoderKLConfig(DecoderConfig):
    """A pretrained AutoencoderKL of diffusers (Rombach et al. 2022), never trained further.

    If the source is a local folder, missing fields of the architecture come from its
    `config.json`. If it is on the Hub, they are those of Stable Diffusion 1.
    """

    frozen: ClassVar[bool] = True

    source: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """The source of the weights of a new cascade: a folder that diffusers saved, or `org/name` or
    `org/name@revision` on the Hub. A trained model contains its weights and needs no source."""

    revision: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    """Branch, tag or commit on the Hub; `source` can contain it instead."""

    subfolder: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    """The folder of the model inside `source`; None also tries `vae`, as in a pipeline."""

    in_channels: _Channels = 3
    """Channels of the encoded image."""

    out_channels: _Channels = 3
    """Channels of the decoded image."""

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
    """Groups of every normalisation; must divide each width."""

    scaling_factor: Annotated[float, Field(gt=0.0, le=1e6)] = 0.18215
    """Factor of the latents, so that their standard deviation is about 1."""

    shift_factor: Annotated[float, Field(ge=-1e6, le=1e6)] | None = None
    """Shift that is subtracted from the latents before scaling."""

    latents_mean: _Statistics | None = None
    """Mean of each latent channel, subtracted before scaling."""

    latents_std: _Statistics | None = None
    """Standard deviation of each latent channel, the divisor of the channel."""

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
            raise ValueError("give both or neither of latents_mean and latents_std")
        for name in ("latents_mean", "latents_std"):
            rows = getattr(self, name)
            if rows is not None and len(rows) != self.latent_channels:
                raise ValueError(
                    f"{name} has {len(rows)} numbers for {self.latent_channels} latent_channels"
                )
        if self.latents_std is not None and min(self.latents_std) <= 0:
            raise ValueError("latents_std must be above 0")
        if self.revision is not None and self.source is not None and "@" in self.source:
            raise ValueError("source and revision both give the revision")
        return self

    @property
    def factor(self) -> int:
        """The factor between the size of the image and of the latents."""
        return int(2 ** (len(self.block_out_channels) - 1))

    @property
    def place(self) -> Source | None:
        """The source of the weights."""
        if self.source is None:
            return None
        return Source(self.source, self.revision)

    def unresolved(self) -> Iterable[str]:
        """The fields of the architecture that the source would provide."""
        return self._open_fields() if self.source is not None else []

    def fit(self, output: ImageShape) -> Self:
        """Fill in the architecture from a local source, and compare it with the images.

        Raises:
            ConfigError: the source is a path that does not exist or is not an AutoencoderKL; the
                images have other channels or are too small.
        """
        fitted = self._filled_in()
        for field in ("in_channels", "out_channels"):
            if getattr(fitted, field) != output.channels:
                raise ConfigError(
                    field,
                    f"is {getattr(fitted, field)}, but the images have {output.channels} channels; "
                    "use another autoencoder, or set data.channels",
                    code="channels",
                )
        most = (2 * output.size - 1).bit_length()
        if len(fitted.block_out_channels) > most:
            raise ConfigError(
                "block_out_channels",
                f"has {len(fitted.block_out_channels)} levels, but {most} already reduce "
                f"{output.size} pixels to one",
                code="levels",
            )
        return fitted

    def upstream_shape(self, output: ImageShape) -> ImageShape:
        """The latents; images whose size ``factor`` does not divide are padded."""
        size = -(-output.size // self.factor)
        return ImageShape(self.latent_channels, size, latent=True)

    def advice(self, output: ImageShape, num_classes: int | None) -> Iterable[str]:
        """Warn about a missing source and about images that are smaller than the trained ones."""
        yield from super().advice(output, num_classes)
        if self.source is None:
            yield (
                "source is missing, so a cascade of this spec has no weights for the stage; set "
                "source to a folder or to org/name on the Hub"
            )
        latents = self.upstream_shape(output)
        if latents.size < 8 and self.factor >= 8:
            yield (
                f"the latents are {latents.size}x{latents.size}, but published autoencoders were "
                "trained on images of 256x256 and more, and reconstruct small images poorly"
            )

    def _open_fields(self) -> list[str]:
        return [name for name in ARCHITECTURE if name not in self.model_fields_set]

    def _filled_in(self) -> Self:
        place = self.place
        open_fields = self._open_fields()
        # A resolved spec is complete, and its source may be on another machine.
        if place is None or not open_fields or (place.folder is None and not place.is_path):
            return self
        try:
            _, stated = read_autoencoder(place, self.subfolder)
        except CascadezooError as error:
            hint = f"; {error.hint}" if error.hint else ""
            raise ConfigError("source", f"{error.what}{hint}", code="source") from error
        fields: dict[str, Any] = {name: getattr(stated, name) for name in open_fields}
        try:
            return type(self).model_validate({**fields, **self.model_dump(exclude_unset=True)})
        except ValidationError as error:
            row = error.errors()[0]
            field = ".".join(str(part) for part in row["loc"]) or "config"
            message = f"has an unsupported {CONFIG}: {field}: {row['msg']}"
            raise ConfigError("source", message, code="source") from error
