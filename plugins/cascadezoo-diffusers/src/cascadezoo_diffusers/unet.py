"""``diffusers-unet2d.v1`` and ``diffusers-unet2d-sr.v1``: U-Nets of diffusers as stages."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from diffusers import UNet2DModel
from torch import Tensor

from cascadezoo import (
    SampleRequest,
    Stage,
    StageGeometry,
    StageInputs,
    StageOutput,
    TrainContext,
)
from cascadezoo.errors import Problem, SampleError, SpecError
from cascadezoo_diffusers.arguments import SchedulerArguments, UNet2DArguments
from cascadezoo_diffusers.config import DiffusersConfig, UNet2DConfig, UNet2DSRConfig
from cascadezoo_diffusers.editing import edit_states
from cascadezoo_diffusers.reading import (
    TRAINED,
    check_same,
    differences,
    read_scheduler,
    read_unet,
)
from cascadezoo_diffusers.samplers import SAMPLERS
from cascadezoo_diffusers.scheduling import check_supported, make_scheduler, rates, reverse
from cascadezoo_diffusers.source import weights_of
from cascadezoo_diffusers.weights import load_weights

__all__ = ["UNet2DGenerator", "UNet2DUpsampler"]


class _UNet2D(Stage):
    """Denoising diffusion (Ho et al. 2020) by a U-Net and a scheduler of diffusers."""

    sampling_options: ClassVar[frozenset[str]] = frozenset({"steps", "guidance", "sampler", "eta"})
    edits = True
    kind: ClassVar[str]
    config: DiffusersConfig
    rates: Tensor
    """Alpha and sigma of each timestep, [T, 2]."""

    def __init__(self, config: DiffusersConfig, geometry: StageGeometry) -> None:
        super().__init__(config, geometry)
        if config.unet is None or config.scheduler is None:
            config = config.fit(geometry.output)
            self.config = config
        self.arguments: UNet2DArguments = config.unet  # type: ignore[assignment]
        self.process: SchedulerArguments = config.scheduler  # type: ignore[assignment]
        self.labels, rows = self._table()
        self.null = self.labels if self.labels is not None and rows > self.labels else None
        """The label that means no label; None if the network has no such row."""
        network = {**self.arguments.model_dump(), "num_class_embeds": rows or None}
        # diffusers has no type annotations.
        self.network: Any = UNet2DModel(**network)  # type: ignore[no-untyped-call]
        self.register_buffer("rates", rates(self.process), persistent=False)

    def load_initial_weights(self) -> None:
        """Load the weights of the config's source, if any.

        Raises:
            SpecError: the config contradicts the source.
            ModelReferenceError: the source does not exist.
            ModelError: a file is missing, damaged, a pickle, or of another network.
            WeightsUnavailableError: the source is on the Hub, which cannot be reached.
        """
        place = self.config.place
        if place is None:
            return
        path, unet = read_unet(place, self.config.subfolder)
        names = [name for name in UNet2DArguments.model_fields if name != "sample_size"]
        problems = list(differences(self.arguments, unet, "unet", f"{place}/{path}", names))
        scheduler = read_scheduler(place, path)
        if scheduler is not None:
            problems += differences(
                self.process, scheduler.arguments, "scheduler", scheduler.where, TRAINED
            )
        check_same(problems, self.kind)
        if scheduler is not None and scheduler.sampler == self.config.sampler:
            check_supported(scheduler)
        load_weights(self.network, weights_of(place, path))

    # --- training

    def preprocess(
        self, target: Tensor, upstream: Tensor | None, context: TrainContext
    ) -> StageInputs:
        """Draw times and noise, mix the noise in, drop labels."""
        count, draw = target.shape[0], context.draw
        times = draw.randint(0, self.process.num_train_timesteps, count)
        alpha, sigma = self.rates[times].view(count, 2, 1, 1, 1).unbind(1)
        noise = draw.randn(*target.shape)
        extra = {"alpha": alpha, "sigma": sigma}
        condition = self.condition(upstream)
        if condition is not None:
            extra["condition"] = condition
        return StageInputs(
            target=target,
            upstream=upstream,
            labels=self._training_labels(context, count),
            noise=noise,
            times=times,
            noisy=alpha * target + sigma * noise,
            extra=extra,
        )

    def forward(self, inputs: StageInputs) -> StageOutput:
        """The squared error of the prediction, and the clean image that it implies.

        The scheduler's config defines the prediction. The image is limited to [-1, 1] unless it
        is a latent.
        """
        noise, times, noisy = inputs.noise, inputs.times, inputs.noisy
        if noise is None or times is None or noisy is None:
            raise TypeError(f"{self.kind} needs the inputs from its preprocess")
        alpha, sigma = inputs.extra["alpha"], inputs.extra["sigma"]
        output = self._predict(noisy, times, inputs.labels, inputs.extra.get("condition"))
        if self.process.prediction_type == "epsilon":
            expected, image = noise, (noisy - sigma * output) / alpha
        elif self.process.prediction_type == "v_prediction":
            expected = alpha * noise - sigma * inputs.target
            image = alpha * noisy - sigma * output
        else:
            expected, image = inputs.target, output
        error = (output - expected.float()).square().mean()
        return StageOutput(self._bounded(image.float()), {"mse": error})

    # --- sampling

    def sample(self, upstream: Tensor | None, request: SampleRequest) -> Tensor:
        """Sample images by a scheduler of diffusers, [N, C, out_size, out_size].

        Supports the option ``eta`` of the ddim sampler. Edits are made by DDIM, whatever the
        sampler of the config.

        Raises:
            SampleError: the model does not support the sampler, steps, labels, guidance or eta.
        """
        edit = request.edit
        if edit is not None and edit.strength == 1 and edit.mask is None:
            edit = None
        name = self._sampler(request.sampler if edit is None else request.sampler or "ddim")
        if edit is not None and name != "ddim":
            raise SampleError(
                f"{self.kind} edits images by ddim, not by {name}",
                hint="omit the sampler",
                code="sample-edit-sampler",
                name=name,
            )
        scheduler = make_scheduler(self.process, name, self._steps(request.steps, name))
        eta = self._eta(request, name)
        condition = self.condition(upstream)
        labels, null, scale = self._guidance(request)

        def predict(image: Tensor, time: Tensor) -> Tensor:
            output = self._predict(image, time, labels, condition)
            if null is None:
                return output
            unconditional = self._predict(image, time, null, condition)
            return unconditional + scale * (output - unconditional)

        shape = self.geometry.output
        start = request.draw.randn(request.count, shape.channels, shape.size, shape.size)
        if edit is None:
            return self._bounded(reverse(scheduler, predict, start, request, eta))

        def estimate(state: Tensor, time: int) -> Tensor:
            return self._estimate(predict(state, torch.tensor(time)), state, table[time])

        table = [(float(alpha), float(sigma)) for alpha, sigma in self.rates.tolist()]
        timesteps = [int(time) for time in scheduler.timesteps]
        image = start
        for image in edit_states(estimate, table, timesteps, edit, start, request):
            if request.watch is not None:
                request.watch(image)
        return self._bounded(image)

    def network_evaluations(self, steps: int | None = None, guidance: float | None = None) -> int:
        """The forward passes of all steps, for a labelled image if the stage has labels."""
        name = self._sampler(None)
        scheduler = make_scheduler(self.process, name, self._steps(steps, name))
        scale = self.config.guidance if guidance is None else guidance
        guided = self.null is not None and scale not in (0, 1)
        return len(scheduler.timesteps) * (2 if guided else 1)

    def condition(self, upstream: Tensor | None) -> Tensor | None:
        """The further input channels of the network, at ``out_size``."""
        return None

    # --- helpers

    def _table(self) -> tuple[int | None, int]:
        """The number of labels, and the number of rows of the table that embeds them.

        Raises:
            SpecError: the network has fewer rows than the data have labels, or the data lack the
                labels that it needs.
        """
        config, rows = self.config, self.arguments.num_class_embeds
        classes = self.geometry.num_classes if config.conditional else None
        path, problem = "unet.num_class_embeds", None
        if classes is None:
            if rows is not None:
                problem = Problem(
                    path, f"is {rows}, but the data have no labels", code="data-without-labels"
                )
        elif rows is None:
            rows = classes if config.label_drop == 0 else classes + 1
        elif rows < classes:
            problem = Problem(
                path, f"is {rows}, but the data have {classes} labels", code="too-few-rows"
            )
        if classes is not None and rows == classes and config.label_drop:
            problem = Problem(
                "label_drop",
                f"is {config.label_drop:g}, but the label table has no row for no label",
                f"set it to 0, or unet.num_class_embeds to {classes + 1}",
                code="no-null-label",
            )
        if problem is not None:
            raise SpecError([problem], source=f"the config of {self.kind}")
        return classes, rows or 0

    def _training_labels(self, context: TrainContext, count: int) -> Tensor | None:
        if self.labels is None:
            return None
        labels = context.labels
        if labels is None:
            raise TypeError(f"{self.kind} needs labels")
        if self.null is None:
            return labels
        drop = 0.1 if self.config.label_drop is None else self.config.label_drop
        hidden = context.draw.rand(count) < drop
        return torch.where(hidden, torch.full_like(labels, self.null), labels)

    def _predict(
        self, image: Tensor, times: Tensor, labels: Tensor | None, condition: Tensor | None
    ) -> Tensor:
        if condition is not None:
            image = torch.cat([image, condition], 1)
        output: Tensor = self.network(image, times, class_labels=labels, return_dict=False)[0]
        return output.float()

    def _estimate(self, output: Tensor, noisy: Tensor, rates: tuple[float, float]) -> Tensor:
        """The clean image from the output of the network."""
        alpha, sigma = rates
        if self.process.prediction_type == "epsilon":
            image = (noisy - sigma * output) / alpha
        elif self.process.prediction_type == "v_prediction":
            image = alpha * noisy - sigma * output
        else:
            image = output
        if not self.process.clip_sample or self.geometry.output.latent:
            return image
        return image.clamp(-self.process.clip_sample_range, self.process.clip_sample_range)

    def _bounded(self, images: Tensor) -> Tensor:
        return images if self.geometry.output.latent else images.clamp(-1.0, 1.0)

    def _sampler(self, requested: str | None) -> str:
        name = requested or self.config.sampler or "ddpm"
        model = (self.process.prediction_type, self.process.rescale_betas_zero_snr)
        supported = [other for other in SAMPLERS if SAMPLERS[other].unsupported(*model) is None]
        hint = f"use one of {', '.join(supported)}"
        if name not in SAMPLERS:
            raise SampleError(
                f"this stage has no sampler {name!r}",
                hint=hint,
                code="sample-sampler-unknown",
                name=name,
            )
        reason = SAMPLERS[name].unsupported(*model)
        if reason is not None:
            raise SampleError(
                f"{name} {reason}", hint=hint, code="sample-sampler-unsupported", name=name
            )
        return name

    def _steps(self, requested: int | None, name: str) -> int:
        sampler, timesteps = SAMPLERS[name], self.process.num_train_timesteps
        least, most = sampler.least, sampler.most(timesteps)
        if requested is None:
            return min(max(self.config.steps or sampler.steps(timesteps), least), most)
        if not least <= requested <= most:
            raise SampleError(
                f"{name} cannot sample in {requested} steps: the model was trained with "
                f"{timesteps} timesteps",
                hint=f"use {least} to {most}",
                code="sample-steps-out-of-range",
                steps=requested,
                least=least,
                most=most,
            )
        return requested

    def _eta(self, request: SampleRequest, name: str) -> float:
        eta: Any = request.options.get("eta")
        if eta is None:
            return self.config.eta
        if isinstance(eta, bool) or not isinstance(eta, int | float) or not 0 <= eta <= 1:
            raise SampleError(
                f"eta must be between 0 and 1, not {eta!r}",
                hint="0 adds no noise, 1 as much as ddpm",
                code="sample-fraction-invalid",
                name="eta",
                value=eta,
            )
        if name != "ddim":
            raise SampleError(
                f"eta was given, but the sampler is {name}",
                hint="use the sampler ddim, or omit eta",
                code="sample-eta-without-ddim",
                name=name,
            )
        return float(eta)

    def _guidance(self, request: SampleRequest) -> tuple[Tensor | None, Tensor | None, float]:
        """The labels to sample, the null labels of guidance, and the scale."""
        requested, labels = request.guidance, request.labels
        if requested is not None and (not math.isfinite(requested) or requested < 0):
            raise SampleError(
                f"cannot sample with guidance {requested:g}",
                hint="use 0 or more: 1 is none",
                code="sample-guidance-invalid",
                value=requested,
            )
        if self.labels is None:
            if requested is not None:
                raise SampleError(
                    f"guidance {requested:g} was requested, but the model has no labels",
                    hint="omit guidance",
                    code="sample-guidance-without-labels",
                )
            return None, None, 1.0
        if labels is None and self.null is None:
            raise SampleError(
                "the model needs labels", hint="give labels", code="sample-labels-missing"
            )
        if labels is None:
            null = torch.full((request.count,), self.null or 0, device=request.draw.device)
            return null, None, 1.0
        scale = self.config.guidance if requested is None else requested
        if scale == 1:
            return labels, None, scale
        if self.null is None:
            raise SampleError(
                f"guidance {scale:g} was requested, but the training dropped no labels",
                hint="omit guidance, or set it to 1",
                code="sample-guidance-untrained",
            )
        null = torch.full_like(labels, self.null)
        return (null, None, 1.0) if scale == 0 else (labels, null, scale)


class UNet2DGenerator(_UNet2D):
    """A generator that is a `UNet2DModel` with a scheduler."""

    Config = UNet2DConfig
    kind = "diffusers-unet2d.v1"
    config: UNet2DConfig


class UNet2DUpsampler(_UNet2D):
    """An upsampler that is a `UNet2DModel` on the noisy and the enlarged upstream image."""

    Config = UNet2DSRConfig
    kind = "diffusers-unet2d-sr.v1"
    config: UNet2DSRConfig

    def condition(self, upstream: Tensor | None) -> Tensor | None:
        """The upstream image at ``out_size``."""
        if upstream is None:
            raise TypeError(f"{self.kind} needs an upstream image")
        mode = self.config.interpolation
        corners = None if mode == "nearest" else False
        size = (self.out_size, self.out_size)
        return F.interpolate(upstream.float(), size=size, mode=mode, align_corners=corners)
