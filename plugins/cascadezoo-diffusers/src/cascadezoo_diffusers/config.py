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

# Above this, the last step is far enough from pure noise to degrade samples.
PURE_NOISE = 0.01

Probability = Annotated[float, Field(ge=0.0, le=1.0)]


class SourceConfig(StageConfig):
    """Fields of a stage that can load weights from diffusers."""

    source: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """The source of the weights of a new cascade: a folder of a model or a complete pipeline that
    diffusers saved, or `org/name` or `org/name@revision` on the Hub. None trains from scratch. A
    trained model contains its weights and does not need the source."""

    revision: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    """Branch, tag or commit on the Hub; `source` can contain it instead."""

    subfolder: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    """The folder of the model inside `source`; None tries the usual names."""

    @model_validator(mode="after")
    def _one_revision(self) -> Self:
        if self.revision is not None and self.source is not None and "@" in self.source:
            raise ValueError("source and revision both give the revision")
        if self.source is None and (self.revision or self.subfolder):
            raise ValueError("revision and subfolder need a source")
        return self

    @property
    def place(self) -> Source | None:
        """The source of the weights."""
        return None if self.source is None else Source(self.source, self.revision)


class DiffusersConfig(SourceConfig):
    """Fields of a stage that is a `UNet2DModel` of diffusers with a scheduler."""

    unet: UNet2DArguments | None = None
    """The network; None uses that of the source, or the defaults."""

    scheduler: SchedulerArguments | None = None
    """The forward process and its reversal; None uses the scheduler of the source, or the
    defaults."""

    sampler: SamplerName | None = None
    """The scheduler of diffusers for sampling; None uses that of the source, or ddpm. Sampling can
    override it."""

    steps: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Number of sampling steps; None uses all timesteps for ddpm, and at most 50 otherwise. A
    sampler that is requested in sampling limits it to its range."""

    eta: Probability = 0.0
    """Noise of the ddim sampler's steps: 0 is none, 1 is as much as ddpm."""

    conditional: bool | None = None
    """Whether to use the labels of the data, if any; None uses them unless the network of the
    source has no labels."""

    label_drop: Probability | None = None
    """Share of the training images without label. Guidance needs them to learn an unconditional
    prediction. None is 0.1 if the label table has a row for no label, otherwise 0."""

    guidance: Annotated[float, Field(ge=0.0, le=1000.0)] = 1.0
    """Scale of classifier-free guidance in sampling: 1 is none, 0 ignores the label."""

    @model_validator(mode="after")
    def _labels(self) -> Self:
        if self.conditional is False and self.unet and self.unet.num_class_embeds is not None:
            raise ValueError(
                "conditional is false, but a network with unet.num_class_embeds needs labels"
            )
        return self

    def inputs(self, output: ImageShape) -> int:
        """Channels of the network's input."""
        return output.channels

    def unresolved(self) -> Iterable[str]:
        """The fields that the source would provide."""
        if self.source is None:
            return []
        return [n for n in ("unet", "scheduler", "sampler") if getattr(self, n) is None]

    def fit(self, output: ImageShape) -> Self:
        """Fill in the values of the source and of the place in the cascade, and check them.

        Raises:
            ConfigError: the source does not exist or is another model; network, scheduler, sampler
                and images do not fit together.
        """
        fitted = super().fit(output)._from_source()
        unet = self._fitted_unet(fitted.unet or UNet2DArguments(), output)
        scheduler = fitted.scheduler
        if scheduler is None:
            scheduler = SchedulerArguments(clip_sample=not output.latent)
        if output.latent and (scheduler.clip_sample or scheduler.thresholding):
            raise ConfigError(
                "scheduler",
                "has clip_sample or thresholding, which need pixels, but this stage makes latents; "
                "set both to false",
                code="latents",
            )
        name = fitted.sampler or "ddpm"
        reason = SAMPLERS[name].unsupported(
            scheduler.prediction_type, scheduler.rescale_betas_zero_snr
        )
        if reason is not None:
            raise ConfigError("sampler", f"is {name}, which {reason}", code="sampler-unsupported")
        least, most = SAMPLERS[name].least, SAMPLERS[name].most(scheduler.num_train_timesteps)
        if fitted.steps is not None and not least <= fitted.steps <= most:
            raise ConfigError(
                "steps",
                f"is {fitted.steps}, but {name} needs {least} to {most} for this schedule",
                code="steps-out-of-range",
            )
        conditional = self.source is None or unet.num_class_embeds is not None
        if fitted.conditional and not conditional:
            raise ConfigError(
                "conditional",
                "is true, but the network of the source has no labels",
                code="source-without-labels",
            )
        return fitted.model_copy(
            update={
                "unet": unet,
                "scheduler": scheduler,
                "sampler": name,
                "conditional": conditional if fitted.conditional is None else fitted.conditional,
            }
        )

    def advice(self, output: ImageShape, num_classes: int | None) -> Iterable[str]:
        """Warn about a schedule that ends early, and about an untrained image size."""
        yield from super().advice(output, num_classes)
        left = self.scheduler.signal() if self.scheduler is not None else 0.0
        if left > PURE_NOISE:
            yield (
                f"the last timestep still keeps {100 * left:.2g} % of the signal's variance, so "
                "sampling from pure noise does not match training; set rescale_betas_zero_snr "
                "with prediction_type v_prediction, or use more timesteps"
            )
        size = self.unet.sample_size if self.unet is not None else None
        if self.source is not None and size not in (None, output.size):
            yield f"the source was trained at {size}x{size} pixels, but this stage makes {output}"

    def _from_source(self) -> Self:
        place = self.place
        if place is None or None not in (self.unet, self.scheduler, self.sampler):
            return self  # A resolved spec is complete; its source may no longer exist.
        update: dict[str, Any] = {}
        try:
            config, unet = read_unet(place, self.subfolder)
            source = read_scheduler(place, config)
        except CascadezooError as error:
            hint = f"; {error.hint}" if error.hint else ""
            raise ConfigError("source", f"{error.what}{hint}", code="source") from error
        if self.unet is None:
            update["unet"] = unet
        if self.scheduler is None:
            if source is None:
                raise ConfigError(
                    "scheduler",
                    "is missing, and the source has no scheduler: set the one that trained the "
                    'model, for example {"prediction_type": "epsilon"}',
                    code="scheduler-missing",
                )
            update["scheduler"] = source.arguments
        if self.sampler is None:
            if source is not None and source.sampler is None:
                raise ConfigError(
                    "sampler",
                    f"is missing, and the {source.name} of the source is not supported with its "
                    f"settings; use one of {', '.join(SAMPLERS)}",
                    code="sampler-missing",
                )
            update["sampler"] = "ddpm" if source is None else source.sampler
        return self.model_copy(update=update)

    def _fitted_unet(self, unet: UNet2DArguments, output: ImageShape) -> UNet2DArguments:
        required = {"in_channels": self.inputs(output), "out_channels": output.channels}
        for name, channels in required.items():
            if getattr(unet, name) not in (None, channels):
                raise ConfigError(
                    f"unet.{name}",
                    f"is {getattr(unet, name)}, but this stage needs {channels}",
                    code="channels",
                )
        if output.size % unet.factor:
            levels = (output.size & -output.size).bit_length()
            raise ConfigError(
                "unet.block_out_channels",
                f"has {len(unet.block_out_channels)} levels, which need a multiple of "
                f"{unet.factor} pixels; {output.size} pixels allow at most {levels}",
                code="levels",
            )
        down, up = unet.blocks()
        size = {"sample_size": output.size} if self.source is None else {}
        return unet.model_copy(
            update={**required, **size, "down_block_types": down, "up_block_types": up}
        )


class UNet2DConfig(DiffusersConfig, GeneratorConfig):
    """A generator: a `UNet2DModel` of diffusers with any of its schedulers."""


class UNet2DSRConfig(DiffusersConfig, UpsamplerConfig):
    """An upsampler: a `UNet2DModel` of diffusers, conditioned on the enlarged upstream image.

    Its input channels are those of the noisy image, then those of the upstream image (Saharia et
    al. 2021).
    """

    interpolation: Literal["bicubic", "bilinear", "nearest"] = "bilinear"
    """How the upstream image is enlarged."""

    def inputs(self, output: ImageShape) -> int:
        """Channels of the network's input: the noisy image and the upstream image."""
        return 2 * output.channels
