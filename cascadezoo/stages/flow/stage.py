"""``flow.v1``: a generator that follows a learned velocity from noise to an image."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from cascadezoo.diffusion.flow import (
    SOLVERS,
    data_from_velocity,
    even_times,
    interpolate,
    logit_normal_times,
    uniform_times,
    velocity_target,
)
from cascadezoo.diffusion.samplers import final
from cascadezoo.nn.unet import UNet
from cascadezoo.stages.base import (
    SampleRequest,
    StageGeometry,
    StageInputs,
    StageOutput,
    TrainContext,
)
from cascadezoo.stages.flow.config import FlowConfig
from cascadezoo.stages.generator import ConditionalGenerator
from cascadezoo.stages.sampling import bounded, chosen_sampler, chosen_steps

__all__ = ["FlowGenerator"]

# The U-Net's time embedding wants neighbours about 1 apart; times lie in [0, 1].
TIME_SCALE = 1000.0


class FlowGenerator(ConditionalGenerator):
    """Rectified flow (Liu et al. 2023): time 0 is data, 1 is noise, the network predicts dx/dt."""

    Config = FlowConfig
    sampling_options = frozenset({"steps", "guidance", "sampler"})
    config: FlowConfig

    def __init__(self, config: FlowConfig, geometry: StageGeometry) -> None:
        super().__init__(config, geometry)
        output = geometry.output
        self.network = UNet(
            output.channels,
            output.channels,
            size=output.size,
            channels=config.channels,
            multipliers=config.multipliers,
            blocks=config.blocks,
            attention=config.attention,
            middle_attention=config.middle_attention,
            dropout=config.dropout,
            num_classes=self.num_classes,
        )

    def preprocess(
        self, target: Tensor, upstream: Tensor | None, context: TrainContext
    ) -> StageInputs:
        """Draw noise and times, mix the noise in, drop labels."""
        count = target.shape[0]
        uniform = self.config.time_sampling == "uniform"
        times = (uniform_times if uniform else logit_normal_times)(context.draw, count)
        noise = context.draw.randn(*target.shape)
        return StageInputs(
            target=target,
            labels=self.training_labels(context),
            noise=noise,
            times=times,
            noisy=interpolate(target, noise, times),
        )

    def forward(self, inputs: StageInputs) -> StageOutput:
        """The squared error of the velocity, and the image where the straight path starts."""
        noise, times, noisy = inputs.noise, inputs.times, inputs.noisy
        if noise is None or times is None or noisy is None:
            raise TypeError("flow.v1 takes the inputs that its preprocess makes")
        velocity = self.network(noisy, times * TIME_SCALE, inputs.labels).float()
        loss = F.mse_loss(velocity, velocity_target(inputs.target, noise))
        estimate = bounded(data_from_velocity(noisy, velocity, times), self.geometry.output)
        return StageOutput(estimate, {"velocity": loss})

    def sample(self, upstream: Tensor | None, request: SampleRequest) -> Tensor:
        """Integrate the velocity from noise to images, [N, C, out_size, out_size].

        Raises:
            SampleError: steps, sampler, labels or guidance that this model cannot serve.
        """
        steps = chosen_steps(request.steps, self.config.steps)
        solver = SOLVERS[chosen_sampler(request.sampler, self.config.sampler, SOLVERS)]
        predict = self.predictor(request)
        shape = self.geometry.output
        start = request.draw.randn(request.count, shape.channels, shape.size, shape.size)
        states = solver.run(lambda x, time: predict(x, time * TIME_SCALE), start, even_times(steps))
        return bounded(final(states), shape)

    def network_evaluations(self, steps: int | None = None, guidance: float | None = None) -> int:
        """Steps, times the forwards that a step takes, for a labelled image where there are any."""
        per_step = SOLVERS[self.config.sampler].evaluations
        taken = chosen_steps(steps, self.config.steps)
        return taken * per_step * self.evaluations_per_prediction(guidance)
