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
    """An `AutoencoderKL` of diffusers (Rombach et al. 2022), trained here or taken as it is."""

    vae: AutoencoderKLArguments | None = None
    """The network and the scale of its latents; None takes those of the source, or the
    defaults."""

    trainable: bool | None = None
    """Whether phases may train it; None trains it unless its weights come from a source."""

    kl_weight: Annotated[float, Field(ge=0.0, le=1000.0)] = 1e-5
    """Weight of the KL divergence of the latents from a standard normal, in nats, summed over an
    image's latents; the error that it stands against is a pixel's mean."""

    reconstruction: Literal["mse", "l1"] = "mse"
    """Error of a pixel: squared or absolute."""

    @property
    def frozen(self) -> bool:  # type: ignore[override]
        """Whether the weights are never trained."""
        return not (self.source is None if self.trainable is None else self.trainable)

    @property
    def network(self) -> AutoencoderKLArguments:
        """The network, of a config that knows its place."""
        if self.vae is None:
            raise ValueError("the config has not been fitted")
        return self.vae

    def fit(self, output: ImageShape) -> Self:
        """Fill in what the source states and the channels, and check them.

        Raises:
            ConfigError: the source leads nowhere or to another model; the network does not fit
                the images; there are neither weights nor a training.
        """
        fitted = super().fit(output)
        vae, place = self.vae, self.place
        if vae is None and place is not None:
            try:
                _, vae = read_autoencoder(place, self.subfolder)
            except CascadezooError as error:
                hint = f"; {error.hint}" if error.hint else ""
                raise ConfigError("source", f"{error.what}{hint}") from error
        vae = vae or AutoencoderKLArguments()
        if self.trainable is False and place is None:
            raise ConfigError("trainable", "is false, and there is no source of weights")
        if self.frozen and vae.scaling_factor is None:
            raise ConfigError(
                "vae.scaling_factor",
                "is not given, and is only measured of a stage that is trained",
            )
        for name in ("in_channels", "out_channels"):
            if getattr(vae, name) not in (None, output.channels):
                raise ConfigError(
                    f"vae.{name}",
                    f"is {getattr(vae, name)}, but the images have {output.channels}",
                )
        if output.size % vae.factor:
            levels = (output.size & -output.size).bit_length()
            raise ConfigError(
                "vae.block_out_channels",
                f"has {len(vae.block_out_channels)} levels, which need a size that {vae.factor} "
                f"divides; {output.size} pixels take at most {levels}",
            )
        channels = {"in_channels": output.channels, "out_channels": output.channels}
        vae = vae.model_copy(update=channels)
        return fitted.model_copy(update={"vae": vae, "trainable": not self.frozen})

    def upstream_shape(self, output: ImageShape) -> ImageShape:
        """The latents."""
        vae = self.network
        return ImageShape(vae.latent_channels, output.size // vae.factor, latent=True)

    def advice(self, output: ImageShape, num_classes: int | None) -> Iterable[str]:
        """Warn of latents that save nothing."""
        yield from super().advice(output, num_classes)
        latents = self.upstream_shape(output)
        if latents.channels * latents.size**2 >= output.channels * output.size**2:
            yield (
                f"its latents ({latents.channels}x{latents.size}x{latents.size}) hold as many "
                f"numbers as the image ({output}): lower latent_channels or add a level"
            )
