"""Samplers against diffusers, step by step, and against a case with a known answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from cascadezoo.diffusion.process import Prediction, x0_from_prediction
from cascadezoo.diffusion.samplers import (
    SAMPLERS,
    SamplerOptions,
    Transition,
    ddim_coefficients,
    ddpm_coefficients,
    final,
    transitions,
)
from cascadezoo.diffusion.schedules import (
    alphas_cumprod,
    cosine_betas,
    linear_betas,
    rescale_zero_terminal_snr,
    spaced_timesteps,
)
from cascadezoo.stages.diffusion.config import DiffusionConfig

NAMES = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
SHAPE = (2, 3, 4, 4)


class Seeded:
    """Float64 noise, the same that diffusers draws from an equal generator."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def randn(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self.generator, dtype=torch.float64)


def network(x: torch.Tensor, timestep: int, timesteps: int) -> torch.Tensor:
    """Any smooth function of image and time serves as the network's prediction."""
    return torch.tanh(1.3 * x - 0.2) * (0.4 + timestep / timesteps)


def ours(
    sampler: str,
    signal: list[float],
    visited: list[int],
    prediction: Prediction,
    options: SamplerOptions,
    clip: bool,
) -> list[torch.Tensor]:
    def denoise(x: torch.Tensor, step: Transition) -> torch.Tensor:
        output = network(x, step.timestep, len(signal))
        x0 = x0_from_prediction(prediction, x, output, step.alpha, step.sigma)
        return x0.clamp(-1, 1) if clip else x0

    noise = Seeded(5)
    start = Seeded(4).randn(*SHAPE)
    run = SAMPLERS[sampler].run
    return list(run(denoise, start, transitions(signal, visited), noise, options))


def reference(
    scheduler: DDPMScheduler | DDIMScheduler, signal: list[float], steps: int, **arguments: object
) -> tuple[list[int], list[torch.Tensor]]:
    scheduler.alphas_cumprod = torch.tensor(signal, dtype=torch.float64)
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(5)
    x, states = Seeded(4).randn(*SHAPE), []
    for timestep in scheduler.timesteps:
        output = network(x, int(timestep), len(signal))
        x = scheduler.step(output, timestep, x, generator=generator, **arguments).prev_sample
        states.append(x)
    return scheduler.timesteps.tolist(), states


SCHEDULES = {
    "linear": alphas_cumprod(linear_betas(1000)),
    "cosine": alphas_cumprod(cosine_betas(200)),
    "zero-terminal": alphas_cumprod(rescale_zero_terminal_snr(linear_betas(100))),
}
CASES = [(s, p) for s in SCHEDULES for p in NAMES if (s, p) != ("zero-terminal", "eps")]


@pytest.mark.parametrize(("schedule", "prediction"), CASES)
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("variance", ["small", "large"])
def test_ddpm_trajectories_are_those_of_diffusers(
    schedule: str, prediction: Prediction, clip: bool, variance: str
) -> None:
    signal = SCHEDULES[schedule]
    # the large variance of diffusers adds noise after the last step unless that starts at 0
    spacing = "trailing" if variance == "small" else "leading"
    scheduler = DDPMScheduler(
        len(signal),
        prediction_type=NAMES[prediction],
        clip_sample=clip,
        variance_type=f"fixed_{variance}",
        timestep_spacing=spacing,
    )
    visited, states = reference(scheduler, signal, 20)
    assert visited == spaced_timesteps(len(signal), 20, spacing)
    options = SamplerOptions(variance=variance)
    mine = ours("ddpm", signal, visited, prediction, options, clip)
    assert len(mine) == 20
    for got, wanted in zip(mine, states, strict=True):
        scale = wanted.abs().max().clamp(min=1)
        assert (got - wanted).abs().max() / scale < 1e-8


@pytest.mark.parametrize(("schedule", "prediction"), CASES)
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_trajectories_are_those_of_diffusers(
    schedule: str, prediction: Prediction, clip: bool, eta: float
) -> None:
    signal = SCHEDULES[schedule]
    scheduler = DDIMScheduler(
        len(signal),
        prediction_type=NAMES[prediction],
        clip_sample=clip,
        timestep_spacing="trailing",
    )
    visited, states = reference(scheduler, signal, 20, eta=eta, use_clipped_model_output=True)
    mine = ours("ddim", signal, visited, prediction, SamplerOptions(eta=eta), clip)
    for got, wanted in zip(mine, states, strict=True):
        scale = wanted.abs().max().clamp(min=1)
        # diffusers leaves the root of a rounding error where eta is 1 and the signal 0
        assert (got - wanted).abs().max() / scale < 1e-7


def test_ddim_with_eta_one_is_ddpm() -> None:
    for step in transitions(SCHEDULES["linear"], spaced_timesteps(1000, 30)):
        assert ddim_coefficients(step, 1.0) == pytest.approx(ddpm_coefficients(step), abs=1e-12)


@pytest.mark.parametrize("name", ["ddpm", "ddim"])
def test_the_last_step_is_the_clean_image(name: str) -> None:
    (last,) = transitions(SCHEDULES["linear"], [0])
    coefficients = (
        ddpm_coefficients(last, "large") if name == "ddpm" else ddim_coefficients(last, 1)
    )
    assert coefficients == pytest.approx((1.0, 0.0, 0.0), abs=1e-12)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ddpm", SamplerOptions()),
        ("ddim", SamplerOptions()),
        ("ddim", SamplerOptions(eta=0.7)),
    ],
)
def test_gaussian_data_come_out_with_their_own_spread(name: str, options: SamplerOptions) -> None:
    """For x0 ~ N(0.3, 0.5**2) the best denoiser is known; sampling must give that back."""
    mean, spread = 0.3, 0.5
    signal = SCHEDULES["zero-terminal"] if name == "ddim" else SCHEDULES["linear"]

    def denoise(x: torch.Tensor, step: Transition) -> torch.Tensor:
        gain = step.alpha * spread**2 / (step.signal * spread**2 + 1 - step.signal)
        return mean + gain * (x - step.alpha * mean)

    path = transitions(signal, list(reversed(range(len(signal)))))
    start = Seeded(1).randn(4000, 1, 1, 1)
    x = final(SAMPLERS[name].run(denoise, start, path, Seeded(2), options))
    assert x.mean().item() == pytest.approx(mean, abs=0.03)
    assert x.std().item() == pytest.approx(spread, rel=0.05)


def test_samplers_keep_no_state_and_can_be_stopped() -> None:
    calls = []

    def denoise(x: torch.Tensor, step: Transition) -> torch.Tensor:
        calls.append(step.timestep)
        return x

    path = transitions(SCHEDULES["linear"], [999, 500, 0])
    states = SAMPLERS["ddim"].run(
        denoise, Seeded(0).randn(*SHAPE), path, Seeded(1), SamplerOptions()
    )
    next(states)
    assert calls == [999]
    with pytest.raises(ValueError, match="no steps"):
        final(iter(()))


def test_deterministic_ddim_draws_no_noise() -> None:
    class Refuses:
        def randn(self, *shape: int) -> torch.Tensor:
            raise RuntimeError("drew noise")

    run: Callable[..., object] = SAMPLERS["ddim"].run
    path = transitions(SCHEDULES["linear"], [999, 500, 0])
    start = Seeded(0).randn(*SHAPE)
    final(run(lambda x, step: x, start, path, Refuses(), SamplerOptions()))
    with pytest.raises(RuntimeError, match="drew noise"):
        final(run(lambda x, step: x, start, path, Refuses(), SamplerOptions(eta=0.1)))


def test_the_config_names_every_sampler() -> None:
    assert set(get_args(DiffusionConfig.model_fields["sampler"].annotation)) == set(SAMPLERS)
