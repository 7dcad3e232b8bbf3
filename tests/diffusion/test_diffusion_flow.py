"""Rectified flow against diffusers and against fields with known solutions."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler
from hypothesis import given
from hypothesis import strategies as st

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
from cascadezoo.diffusion.process import add_noise, level_rates
from cascadezoo.diffusion.samplers import final
from cascadezoo.stages.flow.config import FlowConfig
from cascadezoo.util.rng import Draw


@pytest.mark.parametrize("steps", [1, 4, 25])
def test_euler_trajectories_are_those_of_diffusers(steps: int) -> None:
    def velocity(x: torch.Tensor, time: float) -> torch.Tensor:
        return torch.tanh(x) * (0.5 + time)

    times = even_times(steps)
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=times[:-1])
    start = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    x, reference = start, []
    for timestep in scheduler.timesteps:
        x = scheduler.step(velocity(x, float(timestep) / 1000), timestep, x).prev_sample
        reference.append(x)
    ours = list(SOLVERS["euler"].run(velocity, start, times))
    assert len(ours) == steps
    for got, wanted in zip(ours, reference, strict=True):
        assert torch.allclose(got, wanted, rtol=0, atol=1e-5)


# With fewer, single precision costs diffusers more: it divides by its last time, 0.001.
@pytest.mark.parametrize("steps", [8, 20])
def test_heun_trajectories_are_those_of_diffusers(steps: int) -> None:
    scheduler = FlowMatchHeunDiscreteScheduler()
    scheduler.set_timesteps(steps)
    times = [*scheduler.sigmas[::2].tolist(), 0.0]
    assert len(times) == steps + 1

    def velocity(x: torch.Tensor, time: float) -> torch.Tensor:
        return torch.tanh(x) * (0.5 + time)

    start = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    x, reference, outputs = start, [], []
    for index, timestep in enumerate(scheduler.timesteps):
        outputs.append(velocity(x, float(timestep) / 1000))
        x = scheduler.step(outputs[-1], timestep, x).prev_sample
        if index % 2 or index == len(scheduler.timesteps) - 1:
            reference.append(x)
    assert len(outputs) == SOLVERS["heun"].evaluations(steps)
    given = iter(outputs)
    for field in (velocity, lambda x, time: next(given)):
        ours = list(SOLVERS["heun"].run(field, start, times))
        assert len(ours) == steps
        for got, wanted in zip(ours, reference, strict=True):
            assert torch.allclose(got, wanted, rtol=0, atol=1e-5)


def test_the_path_runs_from_data_to_noise() -> None:
    x0, noise = Draw(1).randn(3, 2, 4, 4), Draw(2).randn(3, 2, 4, 4)
    times = torch.tensor([0.0, 0.25, 1.0])
    x_t = interpolate(x0, noise, times)
    assert torch.equal(x_t[0], x0[0])
    assert torch.equal(x_t[2], noise[2])
    assert torch.allclose(x_t[1], 0.75 * x0[1] + 0.25 * noise[1])
    assert torch.allclose(
        data_from_velocity(x_t, velocity_target(x0, noise), times), x0, rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_one_step_along_a_straight_path_arrives(solver: str) -> None:
    x0, noise = Draw(1).randn(3, 2, 4, 4), Draw(2).randn(3, 2, 4, 4)
    end = final(SOLVERS[solver].run(lambda x, time: noise - x0, noise, even_times(1)))
    assert torch.allclose(end, x0, rtol=0, atol=1e-6)


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_solvers_call_the_field_as_often_as_stated(solver: str) -> None:
    calls = []

    def velocity(x: torch.Tensor, time: float) -> torch.Tensor:
        calls.append(time)
        return x

    for steps in (1, 7):
        calls.clear()
        final(SOLVERS[solver].run(velocity, torch.ones(1, 1, 1, 1), even_times(steps)))
        assert len(calls) == SOLVERS[solver].evaluations(steps)
        assert min(calls) > 0


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("midpoint", 2), ("heun", 2)])
@pytest.mark.parametrize("end", [0.0, 0.3])
def test_solvers_converge_with_their_order(solver: str, order: int, end: float) -> None:
    """dx/dt = x (1 + t) falls from t = 1 to the end by exp of the integral of 1 + t."""
    start = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    exact = math.exp((end + end**2 / 2) - 1.5)

    def error(steps: int) -> float:
        states = SOLVERS[solver].run(lambda x, time: x * (1 + time), start, even_times(steps, end))
        return abs(final(states).item() - exact)

    coarse, fine, finest = (error(steps) for steps in (50, 100, 200))
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.15)
    assert math.log2(fine / finest) == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_gaussian_data_can_be_left_at_a_noise_level(solver: str) -> None:
    """For x0 ~ N(0.3, 0.5**2) the velocity is known; stopped at a level, that level's noise is left."""
    mean, spread, level = 0.3, 0.5, 0.4

    def velocity(x: torch.Tensor, time: float) -> torch.Tensor:
        variance = (1 - time) ** 2 * spread**2 + time**2
        gain = (1 - time) * spread**2 / variance
        x0 = mean + gain * (x - (1 - time) * mean)
        return (x - x0) / time

    time = time_of(level)
    start = torch.randn(4000, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    x = preserved(final(SOLVERS[solver].run(velocity, start, even_times(100, time))), time)
    alpha, sigma = math.cos(math.pi / 2 * level), math.sin(math.pi / 2 * level)
    assert x.mean().item() == pytest.approx(alpha * mean, abs=0.03)
    assert x.std().item() == pytest.approx(math.hypot(alpha * spread, sigma), rel=0.05)


@given(level=st.floats(0, 1))
def test_time_and_level_are_inverse(level: float) -> None:
    time = time_of(level)
    assert 0 <= time <= 1
    assert level_at(time) == pytest.approx(level, abs=1e-7)


def test_a_rescaled_path_is_that_of_the_level() -> None:
    x0, noise = Draw(1).randn(1, 2, 4, 4).double(), Draw(2).randn(1, 2, 4, 4).double()
    for time in (0.0, 0.2, 0.5, 0.9, 1.0):
        x_t = interpolate(x0, noise, torch.tensor([time], dtype=torch.float64))
        level = torch.tensor([level_at(time)], dtype=torch.float64)
        wanted = add_noise(x0, noise, *level_rates(level))
        assert torch.allclose(preserved(x_t, time), wanted, rtol=0, atol=1e-9)


def test_times_and_levels_out_of_range_are_rejected() -> None:
    assert (time_of(0.0), time_of(0.5), time_of(1.0)) == pytest.approx((0.0, 0.5, 1.0))
    with pytest.raises(ValueError, match="1.5"):
        time_of(1.5)
    with pytest.raises(ValueError, match="-0.5"):
        level_at(-0.5)
    with pytest.raises(ValueError, match="0$"):
        even_times(0)
    with pytest.raises(ValueError, match="not 1$"):
        even_times(5, 1.0)


def test_even_times_have_both_ends() -> None:
    times = even_times(3)
    assert times[0] == 1.0
    assert times[-1] == 0.0
    assert times == pytest.approx([1, 2 / 3, 1 / 3, 0])
    truncated = even_times(3, 0.4)
    assert truncated[-1] == 0.4
    assert truncated == pytest.approx([1, 0.8, 0.6, 0.4])


def test_times_are_distributed_as_named() -> None:
    uniform = uniform_times(Draw(0), 20_000)
    assert 0 <= uniform.min() <= uniform.max() < 1
    assert uniform.mean().item() == pytest.approx(0.5, abs=0.01)
    assert uniform.var().item() == pytest.approx(1 / 12, rel=0.03)
    middle = logit_normal_times(Draw(0), 20_000)
    assert 0 < middle.min() <= middle.max() < 1
    logits = torch.logit(middle)
    assert logits.mean().item() == pytest.approx(0.0, abs=0.03)
    assert logits.std().item() == pytest.approx(1.0, rel=0.03)
    late = torch.logit(logit_normal_times(Draw(0), 20_000, mean=0.8, deviation=0.5))
    assert (late.mean().item(), late.std().item()) == pytest.approx((0.8, 0.5), rel=0.03)


def test_the_config_names_every_solver() -> None:
    assert set(get_args(FlowConfig.model_fields["sampler"].annotation)) == set(SOLVERS)
