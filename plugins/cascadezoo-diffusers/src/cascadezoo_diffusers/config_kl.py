"""The config of ``diffusers-autoencoder-kl.v1``. Free of torch and diffusers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import Field

from cascadezoo import ConfigError, DecoderConfig, ImageShape
from cascadezoo.errors import CascadezooError
from cascadezoo_diffusers.arguments import AutoencoderKLArguments
from cascadezoo_diffusers.config import SourceConfig
from cascadezoo_diffusers.reading import read_autoencoder

__all__ = ["AutoencoderKLConfig"]


class AutoencoderKLConfig(SourceConfig, DecoderConfig):
    """An `AutoencoderKL` of diffusers (Rombach et al. 2022), trained or pretrained."""

    vae: AutoencoderKLArguments | None = None
    """The network and the scale of its latents; None uses those of the source, or the
    defaults."""

    trainable: bool | None = None
    """Whether phases can train the stage; None trains it unless its weights have a source."""

    kl_weight: Annotated[float, Field(ge=0.0, le=1000.0)] = 1e-5
    """Weight of the KL divergence of the latents from a standard normal. The divergence is in nats,
    summed over an image's latents, while the reconstruction error is a mean over pixels."""

    reconstruction: Literal["mse", "l1"] = "mse"
    """Reconstruction error: squared or absolute."""

    @property
    def frozen(self) -> bool:  # type: ignore[override]
        """Whether the weights are never trained."""
        return not (self.source is None if self.trainable is None else self.trainable)

    @property
    def network(self) -> AutoencoderKLArguments:
        """The network of a fitted config."""
        if self.vae is None:
            raise ValueError("the config is not fitted")
        return self.vae

    def unresolved(self) -> Iterable[str]:
        """The network, if the source would provide it."""
        return ["vae"] if self.source is not None and self.vae is None else []

    def fit(self, output: ImageShape) -> Self:
        """Fill in the values of the source and the channels, and check them.

        Raises:
            ConfigError: the source does not exist or is another model; the network does not fit
                the images; there are neither weights nor a training.
        """
        fitted = super().fit(output)
        vae, place = self.vae, self.place
        if vae is None and place is not None:
            try:
                _, vae = read_autoencoder(place, self.subfolder)
            except CascadezooError as error:
                hint = f"; {error.hint}" if error.hint else ""
                raise ConfigError("source", f"{error.what}{hint}", code="source") from error
        vae = vae or AutoencoderKLArguments()
        if self.trainable is False and place is None:
            raise ConfigError(
                "trainable", "is false, but there is no source of weights", code="no-weights"
            )
        if self.frozen and vae.scaling_factor is None:
            raise ConfigError(
                "vae.scaling_factor",
                "is missing, and only training measures it",
                code="scale-missing",
            )
        for name in ("in_channels", "out_channels"):
            if getattr(vae, name) not in (None, output.channels):
                raise ConfigError(
                    f"vae.{name}",
                    f"is {getattr(vae, name)}, but the images have {output.channels} channels",
                    code="channels",
                )
        if output.size % vae.factor:
            levels = (output.size & -output.size).bit_length()
            raise ConfigError(
                "vae.block_out_channels",
                f"has {len(vae.block_out_channels)} levels, which need a multiple of {vae.factor} "
                f"pixels; {output.size} pixels allow at most {levels}",
                code="levels",
            )
        channels = {"in_channels": output.channels, "out_channels": output.channels}
        vae = vae.model_copy(update=channels)
        return fitted.model_copy(update={"vae": vae, "trainable": not self.frozen})

    def upstream_shape(self, output: ImageShape) -> ImageShape:
        """The shape of the latents."""
        vae = self.network
        return ImageShape(vae.latent_channels, output.size // vae.factor, latent=True)

    def advice(self, output: ImageShape, num_classes: int | None) -> Iterable[str]:
        """Warn about latents as large as the image."""
        yield from super().advice(output, num_classes)
        latents = self.upstream_shape(output)
        if latents.channels * latents.size**2 >= output.channels * output.size**2:
            yield (
                f"the latents ({latents.channels}x{latents.size}x{latents.size}) hold as many "
                f"numbers as the image ({output}); lower latent_channels or add a level"
            )
