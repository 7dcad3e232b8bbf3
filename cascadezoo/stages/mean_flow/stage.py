"""``mean-flow.v1``: a generator that learns average velocities and samples in one step."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from cascadezoo.diffusion.flow import (
    data_from_velocity,
    interpolate,
    level_at,
    logit_normal_times,
    uniform_times,
    velocity_target,
)
from cascadezoo.diffusion.mean_flow import (
    adaptive_weights,
    average_steps,
    averaged_rows,
    guided_velocity,
    span_target,
)
from cascadezoo.nn.compiled import eagerly
from cascadezoo.stages.base import (
    SampleRequest,
    StageGeometry,
    StageInputs,
    StageOutput,
    TrainContext,
)
from cascadezoo.stages.conditional_stage import ConditionalStage
from cascadezoo.stages.flow_stage import FlowStage, Stepper
from cascadezoo.stages.mean_flow.config import MeanFlowConfig
from cascadezoo.stages.mean_flow.network import AverageUNet

__all__ = ["MeanFlowGenerator"]

TRACED = 20
"""A number of images of which nearly every share is a whole number."""


class MeanFlowGenerator(FlowStage):
    """MeanFlow (Geng et al. 2025) on a U-Net.

    Time 0 is data, time 1 is noise. The network takes a time t and the span t - r to an earlier
    time r, and predicts the average velocity between them; at a span of 0 this is the velocity.
    """

    Config = MeanFlowConfig
    config: MeanFlowConfig  # type: ignore[assignment]
    sampling_options: ClassVar[frozenset[str]] = ConditionalStage.sampling_options - {"sampler"}
    samplers = ()
    traced_images = TRACED

    def __init__(self, config: MeanFlowConfig, geometry: StageGeometry) -> None:
        super().__init__(config, geometry)
        self.network = AverageUNet(config, geometry, self.num_classes, config.time_scale)

    # --- training

    def preprocess(
        self, target: Tensor, upstream: Tensor | None, context: TrainContext
    ) -> StageInputs:
        """Draw noise and pairs of times, mix the noise in at the later time, drop labels."""
        count, draw = target.shape[0], context.draw
        rows = averaged_rows(
            1 - self.config.flow_ratio, draw.rank * count, count, device=target.device
        )
        first, second = (self._drawn_times(context, count) for _ in range(2))
        times = torch.maximum(first, second)
        spans = torch.zeros_like(times)
        spans[rows] = (times - torch.minimum(first, second))[rows]
        noise = draw.randn(*target.shape) if context.noise is None else context.noise
        return StageInputs(
            target=target,
            upstream=upstream,
            labels=self.training_labels(context),
            noise=noise,
            times=times,
            noisy=interpolate(target, noise, times),
            extra={"level": spans, "rows": rows},
        )

    def forward(self, inputs: StageInputs) -> StageOutput:
        """The weighted squared error of the average velocity, and the image that it leads to.

        The estimate follows the average velocity of the span to time 0. It is the sample of one
        step if the span reaches time 0, and that of ``flow.v1`` at a span of 0.
        """
        noise, times, noisy = inputs.noise, inputs.times, inputs.noisy
        if noise is None or times is None or noisy is None:
            raise TypeError(f"{type(self).__name__} needs the inputs from its preprocess")
        average = self.predict(inputs, times)
        estimate = self.limited(data_from_velocity(noisy, average, times))
        if not torch.is_grad_enabled():
            return StageOutput(estimate)
        # After the prediction: autocast reuses the weights that it has cast, with their gradients.
        errors = (average - self.targets(inputs)).square().flatten(1).mean(1)
        weights = adaptive_weights(errors, self.config.power, self.config.floor)
        return StageOutput(
            estimate, {"average": (weights * errors).mean()}, figures={"mse": errors.mean()}
        )

    @torch.no_grad()
    def targets(self, inputs: StageInputs) -> Tensor:
        """The targets of the average velocity [N, C, H, W], float32, for a training batch."""
        noise, times, noisy = inputs.noise, inputs.times, inputs.noisy
        if noise is None or times is None or noisy is None:
            raise TypeError(f"{type(self).__name__} needs the inputs from its preprocess")
        targets = self._velocities(inputs, velocity_target(inputs.target, noise))
        rows = inputs.extra["rows"]
        if not len(rows):
            return targets
        labels = None if inputs.labels is None else inputs.labels[rows]

        def network(x: Tensor, at: Tensor, spans: Tensor) -> Tensor:
            return self._network(x, at, labels, spans)

        spans = inputs.extra["level"][rows]
        # A program that is being traced cannot change how a part of it is compiled.
        tracing = torch.compiler.is_compiling()
        with nullcontext() if tracing else eagerly(self.network):
            averaged = span_target(network, noisy[rows], times[rows], spans, targets[rows])
        return targets.index_copy(0, rows, averaged)

    def _drawn_times(self, context: TrainContext, count: int) -> Tensor:
        config = self.config
        if config.time_sampling == "uniform":
            return uniform_times(context.draw, count)
        return logit_normal_times(context.draw, count, config.time_mean, config.time_deviation)

    def _network(self, x: Tensor, times: Tensor, labels: Tensor | None, spans: Tensor) -> Tensor:
        output: Tensor = self.network(x, times, labels, spans)
        return output.float()

    def _velocities(self, inputs: StageInputs, velocity: Tensor) -> Tensor:
        """The velocities of the field to learn, with its guidance, if any."""
        config, labels, null = self.config, inputs.labels, self.num_classes
        if labels is None or null is None or not config.trains_guidance:
            return velocity
        times, noisy = inputs.times, inputs.noisy
        if times is None or noisy is None:
            raise TypeError(f"{type(self).__name__} needs the inputs from its preprocess")
        spans = torch.zeros_like(times)
        without = self._network(noisy, times, torch.full_like(labels, null), spans)
        given = self._network(noisy, times, labels, spans) if config.kappa else without
        guided = guided_velocity(velocity, given, without, config.omega, config.kappa)
        # Images without label learn the field without guidance (as in the paper).
        return torch.where((labels == null).view(-1, 1, 1, 1), velocity, guided)

    # --- sampling

    def stepper(self, request: SampleRequest, conditions: Sequence[Tensor]) -> Stepper:
        """Steps of the average velocity; the network's only condition is the span."""

        def average(x: Tensor, time: float, end: float) -> Tensor:
            span = torch.full((x.shape[0],), time - end, device=x.device)
            return self.predictor(request, (span,))(x, time, level_at(time))

        return partial(average_steps, average)

    def network_evaluations(self, steps: int | None = None, guidance: float | None = None) -> int:
        """The forward passes of all steps, for a labelled image if the stage has labels."""
        levels = [level_at(time) for time in self._times(steps)[:-1]]
        return self.forwards(levels, len(levels), guidance)
