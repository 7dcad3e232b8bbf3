"""Average velocities against their definition, finite differences and a closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from cascadezoo.diffusion.flow import even_times
from cascadezoo.diffusion.mean_flow import (
    adaptive_weights,
    average_steps,
    averaged_rows,
    guided_velocity,
    span_target,
    total_derivative,
)

MEAN, DEVIATION = 0.3, 0.6


def deviation(time: Tensor) -> Tensor:
    """Of x_t, for data of a normal distribution."""
    return ((1 - time) ** 2 * DEVIATION**2 + time**2).sqrt()


def moved(x: Tensor, time: Tensor, end: Tensor) -> Tensor:
    """x_t after the flow to another time: its distance to the mean shrinks as the deviation."""
    return (1 - end) * MEAN + deviation(end) / deviation(time) * (x - (1 - time) * MEAN)


def velocity(x: Tensor, time: Tensor) -> Tensor:
    slope = (time - (1 - time) * DEVIATION**2) / deviation(time) ** 2
    return slope * (x - (1 - time) * MEAN) - MEAN


def average(x: Tensor, times: Tensor, spans: Tensor) -> Tensor:
    """The average velocity of normal data."""
    time, span = times.view(-1, 1, 1, 1), spans.view(-1, 1, 1, 1)
    return (x - moved(x, time, time - span)) / span


def smooth(x: Tensor, times: Tensor, spans: Tensor) -> Tensor:
    """Any smooth function whose values depend on all arguments."""
    time, span = times.view(-1, 1, 1, 1), spans.view(-1, 1, 1, 1)
    return torch.sin(2 * x + time) * span + x.roll(1, dims=-1) ** 2 * torch.cos(3 * span)


def points(count: int = 6) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, v = torch.randn(2, count, 2, 3, 3, generator=generator, dtype=torch.float64)
    times = torch.linspace(0.3, 1.0, count, dtype=torch.float64)
    spans = torch.linspace(0.2, 0.9, count, dtype=torch.float64) * times
    return x, times, spans, v


def test_the_derivative_equals_finite_differences() -> None:
    x, times, spans, v = points()
    h = 1e-5
    ahead = smooth(x + h * v, times + h, spans + h)
    behind = smooth(x - h * v, times - h, spans - h)
    exact = total_derivative(smooth, x, times, spans, v)
    assert exact.dtype == torch.float64
    assert torch.allclose(exact, (ahead - behind) / (2 * h), rtol=0, atol=1e-8)


def test_the_target_is_the_formula_of_the_paper() -> None:
    x, times, spans, v = points()
    # Without forward mode: one reverse pass for each output would do, here by double backward.
    leaves = [t.clone().requires_grad_() for t in (x, times, spans)]
    output = smooth(*leaves)
    seed = torch.zeros_like(output, requires_grad=True)
    pulled = torch.autograd.grad(output, leaves, seed, create_graph=True)
    ones = torch.ones_like(times)
    (slope,) = torch.autograd.grad(pulled, seed, (v, ones, ones))
    target = span_target(smooth, x, times, spans, v)
    assert torch.allclose(target, v - spans.view(-1, 1, 1, 1) * slope, rtol=0, atol=1e-12)
    assert not target.requires_grad


def test_the_target_of_an_exact_average_is_itself() -> None:
    x, times, spans, _ = points()
    v = velocity(x, times.view(-1, 1, 1, 1))
    assert torch.allclose(
        span_target(average, x, times, spans, v), average(x, times, spans), rtol=0, atol=1e-12
    )


def test_without_a_span_the_target_is_the_velocity() -> None:
    x, times, spans, v = points()
    assert torch.equal(span_target(smooth, x, times, torch.zeros_like(spans), v), v)


def test_an_output_that_depends_on_nothing_has_no_derivative() -> None:
    x, times, spans, v = points()
    constant = torch.ones_like(x)
    assert torch.equal(total_derivative(lambda *_: constant, x, times, spans, v), 0 * x)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_steps_of_an_exact_average_are_exact(steps: int) -> None:
    x, *_ = points()
    count = len(x)

    def exact(state: Tensor, time: float, end: float) -> Tensor:
        times = torch.full((count,), time, dtype=torch.float64)
        return average(state, times, times - end)

    states = list(average_steps(exact, x, even_times(steps)))
    assert len(states) == steps
    # From pure noise, whose deviation is 1 and whose mean is 0.
    assert torch.allclose(states[-1], MEAN + DEVIATION * x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.333, 0.5, 1.0])
def test_the_rows_with_a_span_do_not_depend_on_the_division(share: float) -> None:
    count = 120
    whole = averaged_rows(share, 0, count).tolist()
    assert math.floor(share * count) <= len(whole) <= math.ceil(share * count)
    assert whole == sorted(set(whole))
    assert all(0 <= row < count for row in whole)
    for parts in (2, 3, 8, 120):
        each = count // parts
        divided = [
            first + row
            for first in range(0, count, each)
            for row in averaged_rows(share, first, each).tolist()
        ]
        assert divided == whole


def test_weights_of_the_loss() -> None:
    errors = torch.tensor([0.0, 0.2, 3.0], requires_grad=True)
    assert torch.equal(adaptive_weights(errors, 0.0, 1e-3), torch.ones(3))
    assert torch.allclose(adaptive_weights(errors, 1.0, 1e-3), 1 / (errors.detach() + 1e-3))
    assert not adaptive_weights(errors, 1.0, 1e-3).requires_grad


def test_guidance_of_the_velocity() -> None:
    v, given, without = torch.randn(3, 2, 1, 2, 2)
    assert torch.equal(guided_velocity(v, given, without, 1.0, 0.0), v)
    plain = guided_velocity(v, given, without, 2.0, 0.0)
    assert torch.allclose(plain, without + 2 * (v - without), atol=1e-6)
    # Where the network is right about the label, the scale of guidance is omega / (1 - kappa).
    fixed = v
    for _ in range(200):
        fixed = guided_velocity(v, fixed, without, 1.0, 0.5)
    assert torch.allclose(fixed, without + 2 * (v - without), atol=1e-5)
