"""Base of stages that follow a learned velocity from noise to an image."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import ClassVar, TypeAlias

import torch.nn.functional as F
from torch import Tensor

from cascadezoo.diffusion.editing import FLOW, edited
from cascadezoo.diffusion.flow import (
    SOLVERS,
    data_from_velocity,
    even_times,
    interpolate,
    level_at,
    logit_normal_times,
    preserved,
    time_of,
    uniform_times,
    velocity_target,
)
from cascadezoo.diffusion.samplers import final
from cascadezoo.diffusion.schedules import level_of
from cascadezoo.errors import SampleError
from cascadezoo.stages.base import (
    SampleRequest,
    StageInputs,
    StageOutput,
    TrainContext,
    enlarged_size,
)
from cascadezoo.stages.conditional_stage import ConditionalStage
from cascadezoo.stages.flow.config import FlowFields
from cascadezoo.stages.request_options import bounded, chosen_sampler, chosen_steps

__all__ = ["FlowStage", "Stepper"]

Stepper: TypeAlias = Callable[[Tensor, Sequence[float]], Iterator[Tensor]]
"""Maps x at the first time [N, C, H, W] and times in descending order to x at each further time."""

# The U-Net's time embedding expects neighbours about 1 apart; times are in [0, 1].
TIME_SCALE = 1000.0


class FlowStage(ConditionalStage):
    """Base of stages of rectified flow (Liu et al. 2023). A subclass sets ``network``.

    Time 0 is data, time 1 is noise. The network predicts dx/dt.
    """

    samplers: ClassVar[Collection[str]] = tuple(SOLVERS)
    edits = True
    config: FlowFields

    # --- training

    def preprocess(
        self, target: Tensor, upstream: Tensor | None, context: TrainContext
    ) -> StageInputs:
        """Draw noise and times, mix the noise in, drop labels."""
        inputs = self.noised(target, upstream, context)
        conditions = self.training_conditions(upstream, context)
        return dataclasses.replace(inputs, extra=conditions)

    def noised(self, target: Tensor, upstream: Tensor | None, context: TrainContext) -> StageInputs:
        """The inputs without further conditions, for clean data [N, C, H, W]."""
        count = target.shape[0]
        uniform = self.config.time_sampling == "uniform"
        times = (uniform_times if uniform else logit_normal_times)(context.draw, count)
        noise = context.draw.randn(*target.shape) if context.noise is None else context.noise
        return StageInputs(
            target=target,
            upstream=upstream,
            labels=self.training_labels(context),
            noise=noise,
            times=times,
            noisy=interpolate(target, noise, times),
        )

    def forward(self, inputs: StageInputs) -> StageOutput:
        """The squared error of the velocity, and the image where the straight path starts."""
        noise, times, noisy = inputs.noise, inputs.times, inputs.noisy
        if noise is None or times is None or noisy is None:
            raise TypeError(f"{type(self).__name__} needs the inputs from its preprocess")
        velocity = self.predict(inputs, times * TIME_SCALE)
        loss = F.mse_loss(velocity, velocity_target(inputs.target, noise))
        estimate = self.limited(data_from_velocity(noisy, velocity, times))
        return StageOutput(estimate, {"velocity": loss})

    def limited(self, data: Tensor) -> Tensor:
        """The end of the flow, limited to the range of its data."""
        return bounded(data, self.geometry.output)

    # --- sampling

    def sample(self, upstream: Tensor | None, request: SampleRequest) -> Tensor:
        """Integrate the velocity from noise, or an edit's noised image, to images [N, C, H, W].

        Supports the options ``guidance_interval``, ``negative_label`` and ``stop``: the signal's
        variance at which sampling stops and returns a noisy image with variance-preserving rates.

        Raises:
            SampleError: the model does not support the steps, sampler, labels or guidance.
        """
        shape = self.geometry.output
        size = enlarged_size(self, upstream)
        start = request.draw.randn(request.count, shape.channels, *size)
        return self.integrate(start, self.sampling_conditions(upstream, request), request)

    def make_pairs(self, noise: Tensor, request: SampleRequest) -> Tensor:
        """Sample images from given noise [N, C, out_size, out_size]."""
        return self.integrate(noise, self.sampling_conditions(None, request), request)

    def integrate(
        self, start: Tensor, conditions: Sequence[Tensor], request: SampleRequest
    ) -> Tensor:
        """Integrate the velocity from noise [N, C, H, W] under the network's conditions.

        With an edit, ``request.edit.image`` is the data of the flow.
        """
        end = self._end(request)
        times = self._times(request.steps, end)
        run = self.stepper(request, conditions)
        states = run(start, times)
        if (edit := request.edit) is not None:
            states = edited(
                FLOW,
                run,
                times,
                edit.image,
                start,
                request.draw,
                strength=edit.strength,
                mask=edit.mask,
                resamplings=edit.resamplings,
            )
        image = final(states, request.watch)
        return preserved(image, end) if end > 0 else self.limited(image)

    def stepper(self, request: SampleRequest, conditions: Sequence[Tensor]) -> Stepper:
        """The sampler of a request, under the network's conditions."""
        solver = SOLVERS[chosen_sampler(request.sampler, self.config.sampler, SOLVERS)]
        predict = self.predictor(request, conditions)

        def velocity(x: Tensor, time: float) -> Tensor:
            return predict(x, time * TIME_SCALE, level_at(time))

        return partial(solver.run, velocity)

    def network_evaluations(self, steps: int | None = None, guidance: float | None = None) -> int:
        """The forward passes of all steps, for a labelled image if the stage has labels."""
        levels = [level_at(time) for time in self._times(steps)[:-1]]
        evaluated = SOLVERS[self.config.sampler].evaluations(len(levels))
        return self.forwards(levels, evaluated, guidance)

    def _times(self, requested: int | None, end: float = 0.0) -> Sequence[float]:
        return even_times(chosen_steps(requested, self.config.steps), end)

    def _end(self, request: SampleRequest) -> float:
        stop = request.options.get("stop", 1.0)
        end = 0.0 if stop >= 1 else time_of(level_of(stop))
        if end >= 1:
            raise SampleError(
                "sampling cannot stop before its first step: the requested noise level is too high",
                hint="use a smaller s",
                code="sample-stop-at-start",
            )
        return end
