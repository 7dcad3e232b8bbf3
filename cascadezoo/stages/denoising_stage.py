"""Base of stages that remove noise step by step."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor

from cascadezoo.diffusion.editing import DIFFUSION, edited
from cascadezoo.diffusion.losses import (
    VLB_WEIGHT,
    min_snr_weights,
    posterior_table,
    vlb_term,
)
from cascadezoo.diffusion.process import (
    add_noise,
    continuous_rates,
    dynamic_threshold,
    noise_table,
    prediction_target,
    rates_at,
    x0_from_prediction,
)
from cascadezoo.diffusion.samplers import (
    SAMPLERS,
    Denoised,
    Level,
    SamplerOptions,
    final,
    restart_path,
)
from cascadezoo.diffusion.schedules import SamplingSchedule
from cascadezoo.errors import SampleError
from cascadezoo.stages.base import (
    SampleRequest,
    StageGeometry,
    StageInputs,
    StageOutput,
    TrainContext,
    enlarged_size,
)
from cascadezoo.stages.conditional_stage import ConditionalStage
from cascadezoo.stages.process_config import LEVEL_SCALE, DiffusionProcessConfig, ProcessConfig
from cascadezoo.stages.request_options import bounded, chosen_sampler, chosen_steps, share

__all__ = ["DenoisingStage"]

SCHEDULES: tuple[str, ...] = get_args(SamplingSchedule)


class DenoisingStage(ConditionalStage):
    """Base of stages of denoising diffusion (Ho et al. 2020). A subclass sets ``network``."""

    sampling_options: ClassVar[frozenset[str]] = ConditionalStage.sampling_options | {
        "eta",
        "restart",
        "sampling_schedule",
    }
    samplers: ClassVar[Collection[str]] = tuple(SAMPLERS)
    edits = True
    config: ProcessConfig  # type: ignore[assignment]
    rates: Tensor
    """Alpha and sigma of each timestep, [T, 2]."""
    kept: Tensor
    """The signal's variance at each timestep, [T]."""
    posterior: Tensor
    """Coefficients of the variational bound at each timestep, [T, 4]."""

    def __init__(self, config: ProcessConfig, geometry: StageGeometry) -> None:
        super().__init__(config, geometry)
        self.signal = config.signal()
        extended = config if isinstance(config, DiffusionProcessConfig) else None
        self.loss = "simple" if extended is None else extended.loss
        self.snr_gamma = 5.0 if extended is None else extended.snr_gamma
        self.continuous = extended is not None and extended.noise_conditioning == "continuous"
        self.register_buffer("rates", noise_table(self.signal), persistent=False)
        kept = torch.tensor(self.signal, dtype=torch.float32, device="cpu")
        self.register_buffer("kept", kept, persistent=False)
        self.register_buffer("posterior", posterior_table(self.signal), persistent=False)

    # --- training

    def preprocess(
        self, target: Tensor, upstream: Tensor | None, context: TrainContext
    ) -> StageInputs:
        """Draw times and noise, mix the noise in, drop labels."""
        count, draw = target.shape[0], context.draw
        if self.continuous:
            position = draw.rand(count) * self.config.timesteps
            alpha, sigma, level = continuous_rates(self.kept, position)
            times = level * LEVEL_SCALE
        else:
            times = draw.randint(0, self.config.timesteps, count)
            alpha, sigma = rates_at(self.rates, times)
        noise = draw.randn(*target.shape)
        return StageInputs(
            target=target,
            upstream=upstream,
            labels=self.training_labels(context),
            noise=noise,
            times=times,
            noisy=add_noise(target, noise, alpha, sigma),
            extra={"alpha": alpha, "sigma": sigma, **self.training_conditions(upstream, context)},
        )

    def forward(self, inputs: StageInputs) -> StageOutput:
        """The squared error of the prediction, and the clean image that it implies."""
        noise, times, noisy = inputs.noise, inputs.times, inputs.noisy
        if noise is None or times is None or noisy is None:
            raise TypeError(f"{type(self).__name__} needs the inputs from its preprocess")
        alpha, sigma = inputs.extra["alpha"], inputs.extra["sigma"]
        output, spread = self._split(self.predict(inputs, times))
        expected = prediction_target(self.config.prediction, inputs.target, noise, alpha, sigma)
        errors = (output - expected).square().flatten(1).mean(1)
        if self.loss == "min-snr":
            weights = min_snr_weights(alpha, sigma, self.config.prediction, self.snr_gamma)
            losses = {"mse": (weights.flatten() * errors).mean()}
        else:
            losses = {"mse": errors.mean()}
        x0 = x0_from_prediction(self.config.prediction, noisy, output, alpha, sigma)
        estimate = self._clipped(x0)
        if spread is not None:
            # Not clipped, as in the training of Nichol & Dhariwal 2021: a clipped mean would hide
            # how far off the network is, and teach variances that are too small.
            bound = vlb_term(inputs.target, noisy, x0, spread, self.posterior, times)
            # The bound is a sum over timesteps, of which one is drawn (eq. 16).
            losses["vlb"] = VLB_WEIGHT * self.config.timesteps * bound.mean()
        return StageOutput(estimate, dict(losses))

    # --- sampling

    def sample(self, upstream: Tensor | None, request: SampleRequest) -> Tensor:
        """Denoise pure noise, or the noised image of an edit, to images [N, C, H, W].

        Supports the options ``eta`` (of the ddim sampler), ``guidance_interval``,
        ``negative_label``, ``restart``, ``sampling_schedule`` and ``stop``: the signal's variance
        at which sampling stops and returns a noisy image.

        ``restart`` is the re-noising of Ho et al. 2021 ("Cascaded Diffusion Models", section 4.2
        and table 2a): the forward process adds noise to the finished image up to this noise level,
        and the sampler runs again from there. An edit is not restarted.

        Raises:
            SampleError: the model does not support the steps, sampler, schedule, eta, restart,
                labels or guidance.
        """
        config, shape = self.config, self.geometry.output
        name = chosen_sampler(request.sampler, config.sampler, SAMPLERS)
        options = SamplerOptions(self._eta(request, name), config.step_variance())
        stop = request.options.get("stop", 1.0)
        path = self._path(request.steps, stop, self._schedule(request))
        again = self._restart(request, path)
        predict = self.predictor(request, self.sampling_conditions(upstream, request))

        def denoise(x: Tensor, level: Level) -> Denoised:
            output, spread = self._split(predict(x, level.time, level.level))
            x0 = x0_from_prediction(config.prediction, x, output, level.alpha, level.sigma)
            if config.dynamic_threshold is not None:
                return Denoised(dynamic_threshold(x0, config.dynamic_threshold), spread)
            return Denoised(self._clipped(x0), spread)

        def run(x: Tensor, levels: Sequence[Level]) -> Iterator[Tensor]:
            return SAMPLERS[name].run(denoise, x, levels, request.draw, options)

        size = enlarged_size(self, upstream)
        start = request.draw.randn(request.count, shape.channels, *size)
        states = run(start, path)
        if again:
            states = self._restarted(run, start, request, again)
        if (edit := request.edit) is not None:
            states = edited(
                DIFFUSION,
                run,
                path,
                edit.image,
                start,
                request.draw,
                strength=edit.strength,
                mask=edit.mask,
                resamplings=edit.resamplings,
            )
        image = final(states, request.watch)
        return image if stop < 1 else bounded(image, shape)

    def network_evaluations(self, steps: int | None = None, guidance: float | None = None) -> int:
        """The forward passes of all steps, for a labelled image if the stage has labels."""
        path = self._path(steps, 1.0)
        again = restart_path(path, self.config.restart) if self.config.restart else []
        levels = [level.level for level in (*path[:-1], *again[:-1])]
        count = SAMPLERS[self.config.sampler].evaluations
        evaluated = count(len(path) - 1) + (count(len(again) - 1) if again else 0)
        return self.forwards(levels, evaluated, guidance)

    def _path(
        self, requested: int | None, stop: float, schedule: SamplingSchedule | None = None
    ) -> Sequence[Level]:
        """The levels to visit."""
        timesteps = self.config.timesteps
        most = None if self.continuous else timesteps
        steps = chosen_steps(requested, self.config.steps or timesteps, most)
        try:
            return self.config.sampling_path(self.geometry.output, steps, stop, schedule)
        except ValueError:
            raise SampleError(
                "sampling cannot stop before its first step: the requested noise level is too high",
                hint="use a smaller s, or more steps",
                code="sample-stop-at-start",
            ) from None

    def _restart(self, request: SampleRequest, path: Sequence[Level]) -> Sequence[Level]:
        """The levels that sampling visits again after its end; none without a restart."""
        hint = "0 is no restart, 1 starts again from pure noise"
        restart = share(request.options, "restart", hint)
        if request.edit is not None:
            if restart:
                raise SampleError(
                    "an edit cannot be restarted, because the restart would change its strength",
                    hint="leave out restart",
                    code="sample-restart-edit",
                )
            return []
        level = self.config.restart if restart is None else restart
        if not level:
            return []
        again = restart_path(path, level)
        if not again:
            lowest = math.ceil(1000 * path[-2].level) / 1000
            raise SampleError(
                f"sampling cannot restart at noise level {level:g}: its last step starts at "
                f"{lowest:g}",
                hint=f"use a restart of {lowest:g} to 1, or more steps",
                code="sample-restart-too-low",
                value=level,
            )
        return again

    def _restarted(
        self,
        run: Callable[[Tensor, Sequence[Level]], Iterator[Tensor]],
        start: Tensor,
        request: SampleRequest,
        again: Sequence[Level],
    ) -> Iterator[Tensor]:
        """The states of sampling to the clean image, then of the path from its noised image."""
        image = start
        for image in run(start, self._path(request.steps, 1.0, self._schedule(request))):
            yield image
        image = bounded(image, self.geometry.output)
        noise = request.draw.randn(*image.shape)
        yield from run(add_noise(image, noise, again[0].alpha, again[0].sigma), again)

    def _split(self, output: Tensor) -> tuple[Tensor, Tensor | None]:
        """The prediction, and the network's output for the variances."""
        if self.loss != "hybrid":
            return output, None
        prediction, spread = output.chunk(2, dim=1)
        return prediction, spread

    def _clipped(self, x0: Tensor) -> Tensor:
        return bounded(x0, self.geometry.output) if self.config.clip_x0 else x0

    def _schedule(self, request: SampleRequest) -> SamplingSchedule | None:
        name: Any = request.options.get("sampling_schedule")
        if name is None:
            return None
        if name not in SCHEDULES:
            raise SampleError(
                f"there is no sampling schedule {name!r}",
                hint=f"use one of {', '.join(SCHEDULES)}",
                code="sample-schedule-unknown",
                name=name,
            )
        schedule: SamplingSchedule = name
        return schedule

    def _eta(self, request: SampleRequest, sampler: str) -> float:
        eta = share(request.options, "eta", "0 adds no noise, 1 as much as ddpm")
        if eta is None:
            return self.config.eta
        if sampler != "ddim":
            raise SampleError(
                f"eta was given, but the sampler is {sampler}",
                hint="use the sampler ddim, or omit eta",
                code="sample-eta-without-ddim",
                name=sampler,
            )
        return eta
