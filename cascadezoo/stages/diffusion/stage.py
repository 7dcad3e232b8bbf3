"""``diffusion.v1``: a generator that removes noise step by step."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from cascadezoo.diffusion.process import (
    add_noise,
    noise_table,
    prediction_target,
    rates_at,
    x0_from_prediction,
)
from cascadezoo.diffusion.samplers import (
    SAMPLERS,
    SamplerOptions,
    Transition,
    final,
    transitions,
)
from cascadezoo.diffusion.schedules import spaced_timesteps
from cascadezoo.errors import SampleError
from cascadezoo.stages.base import (
    SampleRequest,
    StageGeometry,
    StageInputs,
    StageOutput,
    TrainContext,
)
from cascadezoo.stages.diffusion.config import DiffusionConfig
from cascadezoo.stages.diffusion.network import ShallowWide
from cascadezoo.stages.generator import ConditionalGenerator
from cascadezoo.stages.sampling import bounded, chosen_sampler, chosen_steps

__all__ = ["DiffusionGenerator"]


class DiffusionGenerator(ConditionalGenerator):
    """Denoising diffusion (Ho et al. 2020) on a shallow wide network."""

    Config = DiffusionConfig
    sampling_options = frozenset({"steps", "guidance", "sampler", "eta"})
    config: DiffusionConfig
    rates: Tensor

    def __init__(self, config: DiffusionConfig, geometry: StageGeometry) -> None:
        super().__init__(config, geometry)
        self.network = ShallowWide(
            geometry.output.channels,
            channels=config.channels,
            latent=config.latent,
            layers=config.layers,
            skip_every=config.skip_every,
            embedding=config.embedding,
            embedding_hidden=config.embedding_hidden,
            dropout=config.dropout,
            num_classes=self.num_classes,
        )
        self.signal = config.signal()
        self.register_buffer("rates", noise_table(self.signal), persistent=False)

    def preprocess(
        self, target: Tensor, upstream: Tensor | None, context: TrainContext
    ) -> StageInputs:
        """Draw timesteps and noise, mix the noise in, drop labels."""
        times = context.draw.randint(0, self.config.timesteps, target.shape[0])
        noise = context.draw.randn(*target.shape)
        return StageInputs(
            target=target,
            labels=self.training_labels(context),
            noise=noise,
            times=times,
            noisy=add_noise(target, noise, *rates_at(self.rates, times)),
        )

    def forward(self, inputs: StageInputs) -> StageOutput:
        """The squared error of the prediction, and the clean image that it implies."""
        noise, times, noisy = inputs.noise, inputs.times, inputs.noisy
        if noise is None or times is None or noisy is None:
            raise TypeError("diffusion.v1 takes the inputs that its preprocess makes")
        prediction = self.config.prediction
        alpha, sigma = rates_at(self.rates, times)
        output = self.network(noisy, times, inputs.labels).float()
        loss = F.mse_loss(output, prediction_target(prediction, inputs.target, noise, alpha, sigma))
        estimate = self._clipped(x0_from_prediction(prediction, noisy, output, alpha, sigma))
        return StageOutput(estimate, {"mse": loss})

    def sample(self, upstream: Tensor | None, request: SampleRequest) -> Tensor:
        """Remove noise from noise until images are left, [N, C, out_size, out_size].

        ``request.options["eta"]`` overrides the config's, for the ddim sampler.

        Raises:
            SampleError: steps, sampler, eta, labels or guidance that this model cannot serve.
        """
        config, shape = self.config, self.geometry.output
        name = chosen_sampler(request.sampler, config.sampler, SAMPLERS)
        options = SamplerOptions(_eta(request.options, name, config.eta), config.variance)
        visited = spaced_timesteps(config.timesteps, self._steps(request.steps), config.spacing)
        predict = self.predictor(request)

        def denoise(x: Tensor, step: Transition) -> Tensor:
            output = predict(x, step.timestep)
            return self._clipped(
                x0_from_prediction(config.prediction, x, output, step.alpha, step.sigma)
            )

        start = request.draw.randn(request.count, shape.channels, shape.size, shape.size)
        path = transitions(self.signal, visited)
        states = SAMPLERS[name].run(denoise, start, path, request.draw, options)
        return bounded(final(states), shape)

    def network_evaluations(self, steps: int | None = None, guidance: float | None = None) -> int:
        """Steps, times the forwards that a step takes, for a labelled image where there are any."""
        per_step = SAMPLERS[self.config.sampler].evaluations
        return self._steps(steps) * per_step * self.evaluations_per_prediction(guidance)

    def _steps(self, asked: int | None) -> int:
        timesteps = self.config.timesteps
        return chosen_steps(asked, self.config.steps or timesteps, timesteps)

    def _clipped(self, x0: Tensor) -> Tensor:
        return bounded(x0, self.geometry.output) if self.config.clip_x0 else x0


def _eta(options: Any, sampler: str, default: float) -> float:
    eta = options.get("eta")
    if eta is None:
        return default
    if sampler != "ddim":
        raise SampleError(
            f"eta was given, but the sampler is {sampler}",
            hint="add sampler ddim, or leave eta out",
        )
    if isinstance(eta, bool) or not isinstance(eta, int | float) or not 0 <= eta <= 1:
        raise SampleError(
            f"eta lies in 0..1, not {eta!r}", hint="0 adds no noise, 1 as much as ddpm"
        )
    return float(eta)
