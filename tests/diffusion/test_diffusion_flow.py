"""Rectified flow against diffusers and against fields with known solutions."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

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
from cascadezoo.draws import Draw
from cascadezoo.stages.flow.config import FlowConfig


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
def test_solvers_call_the_field_as_often_as_they_say(solver: str) -> None:
    calls = []

    def velocity(x: torch.Tensor, time: float) -> torch.Tensor:
        calls.append(time)
        return x

    final(SOLVERS[solver].run(velocity, torch.ones(1, 1, 1, 1), even_times(7)))
    assert len(calls) == 7 * SOLVERS[solver].evaluations


def test_euler_converges_to_the_exact_solution() -> None:
    """dx/dt = x from t = 1 to 0 ends at x / e; Euler's error halves with the step."""
    start = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    errors = [
        abs(
            final(SOLVERS["euler"].run(lambda x, time: x, start, even_times(n))).item() - 1 / math.e
        )
        for n in (50, 100)
    ]
    assert errors[0] / errors[1] == pytest.approx(2.0, rel=0.05)


def test_even_times_have_both_ends() -> None:
    times = even_times(3)
    assert times[0] == 1.0
    assert times[-1] == 0.0
    assert times == pytest.approx([1, 2 / 3, 1 / 3, 0])


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
