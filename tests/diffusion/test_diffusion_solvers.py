"""DPM-Solver++(2M) and Heun against diffusers, and their orders of convergence."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, HeunDiscreteScheduler
from diffusion_reference import (
    NAMES,
    SCHEDULES,
    Refuses,
    assert_close,
    even_path,
    float64_signal,
    gaussian,
    gaussian_solution,
    network,
    ours,
    start,
)

from cascadezoo.diffusion.process import Prediction
from cascadezoo.diffusion.samplers import (
    SAMPLERS,
    Denoised,
    Level,
    SamplerOptions,
    final,
    reverse_path,
)
from cascadezoo.diffusion.schedules import spaced_timesteps

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

# 200 timesteps of the cosine schedule end so steeply that Heun's first step must be Euler's here.
TOPS = {"linear": 1000, "cosine": 199}
CASES = [(s, p) for s in TOPS for p in NAMES]


def strided(schedule: str, steps: int) -> list[int]:
    return spaced_timesteps(TOPS[schedule], steps, "trailing")


def sigmas(signal: list[float], visited: list[int], end: float = 0.0) -> torch.Tensor:
    """sigma / alpha of the timesteps, in float64."""
    ratios = [math.sqrt((1 - signal[t]) / signal[t]) for t in visited]
    return torch.tensor([*ratios, end], dtype=torch.float64)


def dpm_reference(
    signal: list[float], visited: list[int], prediction: str, end: float
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    scheduler = DPMSolverMultistepScheduler(
        len(signal),
        prediction_type=NAMES[prediction],
        final_sigmas_type="sigma_min" if end else "zero",
    )
    float64_signal(scheduler, signal)
    scheduler.set_timesteps(timesteps=visited)
    scheduler.sigmas = sigmas(signal, visited, end)
    x, outputs, states = start(), [], []
    for timestep in scheduler.timesteps:
        outputs.append(network(x, int(timestep) / len(signal)))
        x = scheduler.step(outputs[-1], timestep, x).prev_sample
        states.append(x)
    return outputs, states


@pytest.mark.parametrize(("schedule", "prediction"), CASES)
@pytest.mark.parametrize("steps", [1, 2, 8, 20, 47])
def test_dpm_solver_trajectories_are_those_of_diffusers(
    schedule: str, prediction: Prediction, steps: int
) -> None:
    signal, visited = SCHEDULES[schedule], strided(schedule, steps)
    outputs, states = dpm_reference(signal, visited, prediction, 0.0)
    # diffusers rounds every state to float32
    assert_close(ours("dpmpp-2m", signal, visited, prediction), states, 1e-5)
    same = ours("dpmpp-2m", signal, visited, prediction, outputs=outputs)
    assert_close(same, states, 1e-5)


@pytest.mark.parametrize("prediction", NAMES)
@pytest.mark.parametrize("steps", [8, 20])
def test_dpm_solver_that_stops_early_is_that_of_diffusers(
    prediction: Prediction, steps: int
) -> None:
    """Stopped at the first timestep; diffusers calls that the smallest sigma."""
    signal = SCHEDULES["linear"]
    visited = spaced_timesteps(1000, steps, "trailing")
    end = math.sqrt((1 - signal[0]) / signal[0])
    _, states = dpm_reference(signal, visited, prediction, end)
    assert_close(ours("dpmpp-2m", signal, visited, prediction, stop=signal[0]), states, 1e-5)


@pytest.mark.parametrize(("schedule", "prediction"), CASES)
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("steps", [1, 8, 20])
def test_heun_trajectories_are_those_of_diffusers(
    schedule: str, prediction: Prediction, clip: bool, steps: int
) -> None:
    signal, visited = SCHEDULES[schedule], strided(schedule, steps)
    scheduler = HeunDiscreteScheduler(
        len(signal), prediction_type=NAMES[prediction], clip_sample=clip
    )
    scheduler.set_timesteps(timesteps=visited)
    ratios = sigmas(signal, visited)
    scheduler.sigmas = torch.cat([ratios[:1], ratios[1:-1].repeat_interleave(2), ratios[-1:]])
    # theirs is x / alpha
    x = start() * (ratios[0] ** 2 + 1).sqrt()
    outputs, states = [], []
    for index, timestep in enumerate(scheduler.timesteps):
        scaled = scheduler.scale_model_input(x, timestep)
        outputs.append(network(scaled, float(timestep) / len(signal)))
        x = scheduler.step(outputs[-1], timestep, x).prev_sample
        if index % 2 or timestep == visited[-1]:
            arrived = ratios[len(states) + 1]
            states.append(x / (arrived**2 + 1).sqrt())
    assert len(outputs) == SAMPLERS["heun"].evaluations(steps)
    assert_close(ours("heun", signal, visited, prediction, clip=clip), states, 1e-8)
    same = ours("heun", signal, visited, prediction, clip=clip, outputs=outputs)
    assert_close(same, states, 1e-8)


def error(sampler: str, steps: int) -> float:
    """The distance of a sampler's result from the exact probability flow for Gaussian data."""
    path = even_path(steps, 0.95, 0.05)
    got = final(SAMPLERS[sampler].run(gaussian, start(), path, Refuses(), SamplerOptions()))
    return (got - gaussian_solution(start(), path[0], path[-1])).abs().max().item()


@pytest.mark.parametrize(("sampler", "order"), [("ddim", 1), ("dpmpp-2m", 2), ("heun", 2)])
def test_samplers_converge_with_their_order(sampler: str, order: int) -> None:
    coarse, fine, finest = (error(sampler, steps) for steps in (40, 80, 160))
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.25)
    assert math.log2(fine / finest) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("sampler", ["dpmpp-2m", "heun"])
def test_second_order_is_more_accurate_for_the_same_cost(sampler: str) -> None:
    """With as many calls of the denoiser, half as far from the solution as DDIM."""
    steps = 20 if sampler == "dpmpp-2m" else 10
    assert error(sampler, steps) < error("ddim", 20) / 2


@pytest.mark.parametrize("sampler", ["dpmpp-2m", "heun"])
def test_the_first_step_from_pure_noise_is_ddims(sampler: str) -> None:
    signal = SCHEDULES["zero-terminal"]
    path = reverse_path(signal, spaced_timesteps(100, 20))
    assert path[0].signal == 0
    mine = list(SAMPLERS[sampler].run(gaussian, start(), path, Refuses(), SamplerOptions()))
    wanted = list(SAMPLERS["ddim"].run(gaussian, start(), path, Refuses(), SamplerOptions()))
    assert torch.allclose(mine[0], wanted[0], rtol=0, atol=1e-12)
    assert all(torch.isfinite(state).all() for state in mine)
    # the second step has two finite log-SNRs only in Heun's method
    assert torch.allclose(mine[1], wanted[1], rtol=0, atol=1e-12) == (sampler == "dpmpp-2m")
    assert not torch.allclose(mine[5], wanted[5], rtol=0, atol=1e-6)


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
@pytest.mark.parametrize("schedule", ["linear", "cosine", "zero-terminal"])
@pytest.mark.parametrize("steps", [1, 2, 3, 20])
def test_few_steps_of_any_schedule_stay_in_bounds(sampler: str, schedule: str, steps: int) -> None:
    """Single precision, clipped estimates: what a stage does. Nothing blows up at the noisy end."""

    class Single:
        def randn(self, *shape: int) -> torch.Tensor:
            return torch.zeros(shape)

    def denoise(x: torch.Tensor, level: Level) -> Denoised:
        # an estimate that changes from one level to the next
        return Denoised((network(x, level.level) * (1 - level.level)).clamp(-1, 1))

    signal = SCHEDULES[schedule]
    path = reverse_path(signal, spaced_timesteps(len(signal), steps, "trailing"))
    for state in SAMPLERS[sampler].run(denoise, start().float(), path, Single(), SamplerOptions()):
        assert state.abs().max() < 6


def test_heun_omits_the_correction_of_too_steep_steps() -> None:
    """From nearly pure noise: sigma / alpha falls a thousandfold."""
    path: list[Any] = [Level(1.0, 1e-8), Level(0.5, 1e-2), Level(0.0, 1.0)]
    calls = []

    def denoise(x: torch.Tensor, level: Level) -> Denoised:
        calls.append(level.signal)
        return gaussian(x, level)

    final(SAMPLERS["heun"].run(denoise, start(), path, Refuses(), SamplerOptions()))
    assert calls == [1e-8, 1e-2]
