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
from cascadezoo_diffusers.reading import (
    TRAINED,
    check_same,
    differences,
    read_scheduler,
    read_unet,
)
from cascadezoo_diffusers.samplers import SAMPLERS
from cascadezoo_diffusers.scheduling import check_known, make_scheduler, rates, reverse
from cascadezoo_diffusers.source import weights_of
from cascadezoo_diffusers.weights import load_weights

__all__ = ["UNet2DGenerator", "UNet2DUpsampler"]


class _UNet2D(Stage):
    """Denoising diffusion (Ho et al. 2020) by a U-Net and a scheduler of diffusers."""

    sampling_options: ClassVar[frozenset[str]] = frozenset({"steps", "guidance", "sampler", "eta"})
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
        """The label that stands for none; None where there is no such label."""
        network = {**self.arguments.model_dump(), "num_class_embeds": rows or None}
        # diffusers has no types; what it makes is a module.
        self.network: Any = UNet2DModel(**network)  # type: ignore[no-untyped-call]
        self.register_buffer("rates", rates(self.process), persistent=False)

    def load_initial_weights(self) -> None:
        """Take the weights of the config's source, if it has one.

        Raises:
            SpecError: the config says otherwise than the source.
            ModelReferenceError: the source is not there.
            ModelError: a file is missing, damaged, of another network or a pickle.
            WeightsUnavailableError: the source is on the Hub, which cannot be reached.
        """
        place = self.config.place
        if place is None:
            return
        path, unet = read_unet(place, self.config.subfolder)
        names = [name for name in UNet2DArguments.model_fields if name != "sample_size"]
        problems = list(differences(self.arguments, unet, "unet", f"{place}/{path}", names))
        found = read_scheduler(place, path)
        if found is not None:
            problems += differences(
                self.process, found.arguments, "scheduler", found.where, TRAINED
            )
        check_same(problems, self.kind)
        if found is not None and found.sampler == self.config.sampler:
            check_known(found)
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

        What is predicted is what the scheduler's config says; the image is limited to [-1, 1]
        unless it is of latents.
        """
        noise, times, noisy = inputs.noise, inputs.times, inputs.noisy
        if noise is None or times is None or noisy is None:
            raise TypeError(f"{self.kind} takes the inputs that its preprocess makes")
        alpha, sigma = inputs.extra["alpha"], inputs.extra["sigma"]
        output = self._predict(noisy, times, inputs.labels, inputs.extra.get("condition"))
        if self.process.prediction_type == "epsilon":
            wanted, image = noise, (noisy - sigma * output) / alpha
        elif self.process.prediction_type == "v_prediction":
            wanted, image = alpha * noise - sigma * inputs.target, alpha * noisy - sigma * output
        else:
            wanted, image = inputs.target, output
        error = (output - wanted.float()).square().mean()
        return StageOutput(self._bounded(image.float()), {"mse": error})

    # --- sampling

    def sample(self, upstream: Tensor | None, request: SampleRequest) -> Tensor:
        """Images by a scheduler of diffusers, [N, C, out_size, out_size].

        Heeds the option ``eta`` of the ddim sampler.

        Raises:
            SampleError: a sampler, steps, labels, guidance or eta that this model cannot serve.
        """
        name = self._sampler(request.sampler)
        scheduler = make_scheduler(self.process, name, self._steps(request.steps, name))
        eta = self._eta(request, name)
        condition = self.condition(upstream)
        labels, against, scale = self._guidance(request)

        def predict(image: Tensor, time: Tensor) -> Tensor:
            output = self._predict(image, time, labels, condition)
            if against is None:
                return output
            plain = self._predict(image, time, against, condition)
            return plain + scale * (output - plain)

        shape = self.geometry.output
        start = request.draw.randn(request.count, shape.channels, shape.size, shape.size)
        return self._bounded(reverse(scheduler, predict, start, request, eta))

    def network_evaluations(self, steps: int | None = None, guidance: float | None = None) -> int:
        """The forwards of all steps, for a labelled image where there are labels."""
        name = self._sampler(None)
        scheduler = make_scheduler(self.process, name, self._steps(steps, name))
        scale = self.config.guidance if guidance is None else guidance
        guided = self.null is not None and scale not in (0, 1)
        return len(scheduler.timesteps) * (2 if guided else 1)

    def condition(self, upstream: Tensor | None) -> Tensor | None:
        """What the network is given behind the noisy image, at ``out_size``."""
        return None

    # --- within

    def _table(self) -> tuple[int | None, int]:
        """How many labels there are, and the rows of the table that embeds them.

        Raises:
            SpecError: the network has fewer rows than the data have labels, or needs labels that
                are not there.
        """
        config, rows = self.config, self.arguments.num_class_embeds
        classes = self.geometry.num_classes if config.conditional else None
        path, problem = "unet.num_class_embeds", None
        if classes is None:
            if rows is not None:
                problem = Problem(path, f"is {rows}, but the data have no labels")
        elif rows is None:
            rows = classes if config.label_drop == 0 else classes + 1
        elif rows < classes:
            problem = Problem(path, f"is {rows}, but the data have {classes} labels")
        if classes is not None and rows == classes and config.label_drop:
            problem = Problem(
                "label_drop",
                f"is {config.label_drop:g}, but the network has no label that stands for none",
                f"set it to 0, or unet.num_class_embeds to {classes + 1}",
            )
        if problem is not None:
            raise SpecError([problem], source=f"the config of {self.kind}")
        return classes, rows or 0

    def _training_labels(self, context: TrainContext, count: int) -> Tensor | None:
        if self.labels is None:
            return None
        labels = context.labels
        if labels is None:
            raise TypeError(f"{self.kind} was made for data with labels")
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

    def _bounded(self, images: Tensor) -> Tensor:
        return images if self.geometry.output.latent else images.clamp(-1.0, 1.0)

    def _sampler(self, asked: str | None) -> str:
        name = asked or self.config.sampler or "ddpm"
        process = self.process
        said = (process.prediction_type, process.rescale_betas_zero_snr)
        known = [other for other in SAMPLERS if SAMPLERS[other].refusal(*said) is None]
        if name not in SAMPLERS:
            raise SampleError(
                f"there is no sampler {name!r} for this stage",
                hint=f"use one of {', '.join(known)}",
            )
        refusal = SAMPLERS[name].refusal(*said)
        if refusal is not None:
            raise SampleError(f"{name} {refusal}", hint=f"use one of {', '.join(known)}")
        return name

    def _steps(self, asked: int | None, name: str) -> int:
        sampler, timesteps = SAMPLERS[name], self.process.num_train_timesteps
        least, most = sampler.least, sampler.most(timesteps)
        if asked is None:
            return min(max(self.config.steps or sampler.steps(timesteps), least), most)
        if not least <= asked <= most:
            raise SampleError(
                f"{name} cannot sample in {asked} steps: the model was trained with {timesteps} "
                "timesteps",
                hint=f"ask for {least} to {most}",
            )
        return asked

    def _eta(self, request: SampleRequest, name: str) -> float:
        eta: Any = request.options.get("eta")
        if eta is None:
            return self.config.eta
        if isinstance(eta, bool) or not isinstance(eta, int | float) or not 0 <= eta <= 1:
            raise SampleError(
                f"eta lies in 0..1, not {eta!r}", hint="0 adds no noise, 1 as much as ddpm"
            )
        if name != "ddim":
            raise SampleError(
                f"eta was given, but the sampler is {name}",
                hint="add sampler ddim, or leave eta out",
            )
        return float(eta)

    def _guidance(self, request: SampleRequest) -> tuple[Tensor | None, Tensor | None, float]:
        """The labels to sample, those to be guided away from, and the scale."""
        asked, labels = request.guidance, request.labels
        if asked is not None and (not math.isfinite(asked) or asked < 0):
            raise SampleError(
                f"cannot sample with a guidance of {asked:g}", hint="use 0 or more: 1 is none"
            )
        if self.labels is None:
            if asked is not None:
                raise SampleError(
                    f"a guidance of {asked:g} was asked for, but the model knows no labels",
                    hint="leave it out",
                )
            return None, None, 1.0
        if labels is None and self.null is None:
            raise SampleError("the model needs labels, and none were given", hint="give labels")
        if labels is None:
            null = torch.full((request.count,), self.null or 0, device=request.draw.device)
            return null, None, 1.0
        scale = self.config.guidance if asked is None else asked
        if scale == 1:
            return labels, None, scale
        if self.null is None:
            raise SampleError(
                f"a guidance of {scale:g} was asked for, but the model was trained without hidden "
                "labels",
                hint="leave guidance out, or set it to 1",
            )
        against = torch.full_like(labels, self.null)
        return (against, None, 1.0) if scale == 0 else (labels, against, scale)


class UNet2DGenerator(_UNet2D):
    """A generator that is a `UNet2DModel` with a scheduler."""

    Config = UNet2DConfig
    kind = "diffusers-unet2d.v1"
    config: UNet2DConfig


class UNet2DUpsampler(_UNet2D):
    """An upsampler that is a `UNet2DModel` given the noisy image and the enlarged upstream one."""

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
