"""The configs of the U-Net kinds. Free of torch and diffusers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from cascadezoo import ConfigError, GeneratorConfig, ImageShape, StageConfig, UpsamplerConfig
from cascadezoo.errors import CascadezooError
from cascadezoo_diffusers.arguments import SchedulerArguments, UNet2DArguments
from cascadezoo_diffusers.reading import read_scheduler, read_unet
from cascadezoo_diffusers.samplers import SAMPLERS, SamplerName
from cascadezoo_diffusers.source import Source

__all__ = ["DiffusersConfig", "SourceConfig", "UNet2DConfig", "UNet2DSRConfig"]

# Above this, a last step is far enough from pure noise that samples show it.
PURE_NOISE = 0.01

Probability = Annotated[float, Field(ge=0.0, le=1.0)]


class SourceConfig(StageConfig):
    """Fields of a stage whose weights may come from diffusers."""

    source: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """What the weights are taken from when a cascade is built: a folder that diffusers saved, of
    a model or of a whole pipeline, or `org/name` or `org/name@revision` on the Hub. None trains
    from scratch. A trained model has its weights itself and never looks there."""

    revision: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    """Branch, tag or commit on the Hub; may stand in `source` instead."""

    subfolder: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    """The folder of the model inside `source`; found by itself where it is called as usual."""

    @model_validator(mode="after")
    def _one_revision(self) -> Self:
        if self.revision is not None and self.source is not None and "@" in self.source:
            raise ValueError("the revision is given twice: in source and in revision")
        if self.source is None and (self.revision or self.subfolder):
            raise ValueError("revision and subfolder are of a source, and there is none")
        return self

    @property
    def place(self) -> Source | None:
        """Where the weights are taken from."""
        return None if self.source is None else Source(self.source, self.revision)


class DiffusersConfig(SourceConfig):
    """Fields of a stage that is a `UNet2DModel` of diffusers with a scheduler."""

    unet: UNet2DArguments | None = None
    """The network; None takes that of the source, or the defaults."""

    scheduler: SchedulerArguments | None = None
    """The forward process, and how it is undone; None takes that of the source, or the
    defaults."""

    sampler: SamplerName | None = None
    """The scheduler that samples, by diffusers: None takes that of the source, or ddpm. Any of
    them can be asked for in sampling too."""

    steps: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Steps of sampling; None takes all timesteps for ddpm, and at most 50 for the others. A
    sampler that is asked for and cannot take so many takes as many as it can."""

    eta: Probability = 0.0
    """Noise of the ddim sampler's steps, from none to as much as ddpm's."""

    conditional: bool | None = None
    """Whether labels are used where the data have them; None uses them unless the weights are
    from a source whose network knows none."""

    label_drop: Probability | None = None
    """Share of the training images whose label is hidden, so that guidance has an unconditional
    prediction to start from. None is 0.1 where the table of labels has a row for none, else 0."""

    guidance: Annotated[float, Field(ge=0.0, le=1000.0)] = 1.0
    """Scale of classifier-free guidance in sampling: 1 is none, 0 ignores the label."""

    @model_validator(mode="after")
    def _labels(self) -> Self:
        if self.conditional is False and self.unet and self.unet.num_class_embeds is not None:
            raise ValueError(
                "conditional is false, but unet.num_class_embeds makes a network that needs labels"
            )
        return self

    def inputs(self, output: ImageShape) -> int:
        """Channels of the network's input."""
        return output.channels

    def fit(self, output: ImageShape) -> Self:
        """Fill in what the source states and what follows from the place, and check them.

        Raises:
            ConfigError: the source leads nowhere or to another model; the network, the scheduler
                or the sampler does not fit the images or one another.
        """
        fitted = super().fit(output)._from_source()
        unet = self._fitted_unet(fitted.unet or UNet2DArguments(), output)
        scheduler = fitted.scheduler
        if scheduler is None:
            scheduler = SchedulerArguments(clip_sample=not output.latent)
        if output.latent and (scheduler.clip_sample or scheduler.thresholding):
            raise ConfigError(
                "scheduler",
                "has clip_sample or thresholding, which are for pixels, and this stage makes "
                "latents; set both to false",
            )
        name = fitted.sampler or "ddpm"
        refusal = SAMPLERS[name].refusal(
            scheduler.prediction_type, scheduler.rescale_betas_zero_snr
        )
        if refusal is not None:
            raise ConfigError("sampler", f"is {name}, which {refusal}")
        least, most = SAMPLERS[name].least, SAMPLERS[name].most(scheduler.num_train_timesteps)
        if fitted.steps is not None and not least <= fitted.steps <= most:
            raise ConfigError(
                "steps", f"is {fitted.steps}, but {name} takes {least} to {most} of this schedule"
            )
        conditional = self.source is None or unet.num_class_embeds is not None
        if fitted.conditional and not conditional:
            raise ConfigError("conditional", "is true, but the source's network knows no labels")
        return fitted.model_copy(
            update={
                "unet": unet,
                "scheduler": scheduler,
                "sampler": name,
                "conditional": conditional if fitted.conditional is None else fitted.conditional,
            }
        )

    def advice(self, output: ImageShape, num_classes: int | None) -> Iterable[str]:
        """Warn of a schedule that ends early, and of a size that weights were not trained at."""
        yield from super().advice(output, num_classes)
        left = self.scheduler.signal() if self.scheduler is not None else 0.0
        if left > PURE_NOISE:
            yield (
                f"the last timestep still keeps {100 * left:.2g} % of the signal's variance, so "
                "sampling from pure noise does not match training; set rescale_betas_zero_snr "
                "with prediction_type v_prediction, or take more timesteps"
            )
        size = self.unet.sample_size if self.unet is not None else None
        if self.source is not None and size not in (None, output.size):
            yield f"the source was trained at {size}x{size} pixels, and is to make {output}"

    def _from_source(self) -> Self:
        place = self.place
        if place is None or None not in (self.unet, self.scheduler, self.sampler):
            return self  # also every resolved spec: its source may be gone
        update: dict[str, Any] = {}
        try:
            config, unet = read_unet(place, self.subfolder)
            found = read_scheduler(place, config)
        except CascadezooError as error:
            hint = f"; {error.hint}" if error.hint else ""
            raise ConfigError("source", f"{error.what}{hint}") from error
        if self.unet is None:
            update["unet"] = unet
        if self.scheduler is None:
            if found is None:
                raise ConfigError(
                    "scheduler",
                    "is not given, and the source has none: write the one that its model was "
                    'trained with, for example {"prediction_type": "epsilon"}',
                )
            update["scheduler"] = found.arguments
        if self.sampler is None:
            if found is not None and found.sampler is None:
                raise ConfigError(
                    "sampler",
                    f"is not given, and the {found.name} of the source is none that is known here "
                    f"as it is set; choose one of {', '.join(SAMPLERS)}",
                )
            update["sampler"] = "ddpm" if found is None else found.sampler
        return self.model_copy(update=update)

    def _fitted_unet(self, unet: UNet2DArguments, output: ImageShape) -> UNet2DArguments:
        wanted = {"in_channels": self.inputs(output), "out_channels": output.channels}
        for name, channels in wanted.items():
            if getattr(unet, name) not in (None, channels):
                raise ConfigError(
                    f"unet.{name}",
                    f"is {getattr(unet, name)}, but this place asks for {channels}",
                )
        if output.size % unet.factor:
            levels = (output.size & -output.size).bit_length()
            raise ConfigError(
                "unet.block_out_channels",
                f"has {len(unet.block_out_channels)} levels, which need a size that {unet.factor} "
                f"divides; {output.size} pixels take at most {levels}",
            )
        down, up = unet.blocks()
        size = {"sample_size": output.size} if self.source is None else {}
        return unet.model_copy(
            update={**wanted, **size, "down_block_types": down, "up_block_types": up}
        )


class UNet2DConfig(DiffusersConfig, GeneratorConfig):
    """A generator: a `UNet2DModel` of diffusers with any of its schedulers."""


class UNet2DSRConfig(DiffusersConfig, UpsamplerConfig):
    """An upsampler: a `UNet2DModel` of diffusers that sees the enlarged upstream image.

    Its input is the noisy image and, behind it, the upstream one (Saharia et al. 2021).
    """

    interpolation: Literal["bicubic", "bilinear", "nearest"] = "bilinear"
    """How the upstream image is enlarged."""

    def inputs(self, output: ImageShape) -> int:
        """Channels of the network's input: the noisy image and the upstream one."""
        return 2 * output.channels
