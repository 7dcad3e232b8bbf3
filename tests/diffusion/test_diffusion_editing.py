"""Editing by a diffusion or a flow, compared with Gaussian data whose answers are known."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from cascadezoo.diffusion.editing import (
    DIFFUSION,
    FLOW,
    Process,
    edited,
    first_step,
    shrink_mask,
    slerp,
)
from cascadezoo.diffusion.flow import SOLVERS, even_times
from cascadezoo.diffusion.levels import CLEAN, Level
from cascadezoo.diffusion.samplers import SAMPLERS, Denoised, SamplerOptions
from cascadezoo.util.rng import ImageDraw

RHO = 0.8
"""Correlation of the two pixels of the data; both are standard normal."""

COVARIANCE = torch.tensor([[1.0, RHO], [RHO, 1.0]])


class Draw:
    """One stream of numbers for the whole batch."""

    def __init__(self, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def randn(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)


def posterior(x: Tensor, alpha: float, sigma: float) -> Tensor:
    """E[x0 | x] for x = alpha * x0 + sigma * noise and the correlated data."""
    gain = alpha * COVARIANCE @ torch.linalg.inv(alpha**2 * COVARIANCE + sigma**2 * torch.eye(2))
    return (x.view(-1, 2) @ gain.T).view_as(x)


def diffusion(draw: Draw) -> tuple[Process[Any], Callable[..., Iterator[Tensor]], Sequence[Any]]:
    steps = 60
    path = [
        Level(t, math.cos(t * math.pi / 2) ** 2) for t in (i / steps for i in range(steps, 0, -1))
    ]

    def denoise(x: Tensor, level: Level) -> Denoised:
        return Denoised(posterior(x, level.alpha, level.sigma))

    def run(x: Tensor, part: Sequence[Level]) -> Iterator[Tensor]:
        return SAMPLERS["ddpm"].run(denoise, x, part, draw, SamplerOptions())

    return DIFFUSION, run, [*path, CLEAN]


def flow(draw: Draw) -> tuple[Process[Any], Callable[..., Iterator[Tensor]], Sequence[Any]]:
    def velocity(x: Tensor, time: float) -> Tensor:
        return (x - posterior(x, 1 - time, time)) / time

    def run(x: Tensor, part: Sequence[float]) -> Iterator[Tensor]:
        return SOLVERS["euler"].run(velocity, x, part)

    return FLOW, run, even_times(60)


PROCESSES = {"diffusion": diffusion, "flow": flow}


@pytest.fixture(params=PROCESSES)
def make(request: pytest.FixtureRequest) -> Any:
    return PROCESSES[request.param]


def last(states: Iterator[Tensor]) -> Tensor:
    *_, image = states
    return image


def test_strength_one_without_mask_is_sampling(make: Any) -> None:
    noise, image = torch.randn(4, 1, 1, 2), torch.full((4, 1, 1, 2), 9.0)
    process, run, path = make(Draw())
    plain = list(run(noise, path))
    process, run, path = make(Draw())
    states = list(edited(process, run, path, image, noise, Draw(1)))
    assert len(states) == len(plain)
    assert all(torch.equal(a, b) for a, b in zip(states, plain, strict=True))


def test_a_smaller_strength_stays_nearer(make: Any) -> None:
    image = torch.tensor([2.0, 2.0]).expand(500, 1, 1, 2)
    distances = []
    for strength in (0.02, 0.3, 0.6, 1.0):
        draw = Draw()
        process, run, path = make(draw)
        noise = draw.randn(500, 1, 1, 2)
        result = last(edited(process, run, path, image, noise, draw, strength=strength))
        distances.append(float((result - image).abs().mean()))
    assert distances == sorted(distances)
    assert distances[0] < 0.2
    assert distances[-1] > 1.5


@pytest.mark.parametrize("value", [-1.5, 0.0, 1.5])
def test_inpainting_draws_from_the_conditional_distribution(make: Any, value: float) -> None:
    n = 4000
    image = torch.full((n, 1, 1, 2), value)
    mask = torch.tensor([False, True]).view(1, 1, 1, 2).expand(n, 1, 1, 2)
    errors = {}
    for resamplings in (1, 20):
        draw = Draw(3)
        process, run, path = make(draw)
        noise = draw.randn(n, 1, 1, 2)
        result = last(
            edited(process, run, path, image, noise, draw, mask=mask, resamplings=resamplings)
        )
        known, redrawn = result[..., 0], result[..., 1]
        assert (known == value).all()
        errors[resamplings] = abs(float(redrawn.mean()) - RHO * value)
        if resamplings == 20:
            assert float(redrawn.std()) == pytest.approx(math.sqrt(1 - RHO**2), abs=0.1)
    assert errors[20] < 0.12
    if value:  # RePaint's resampling is what makes the parts agree
        assert errors[20] < errors[1]


def test_going_back_has_the_distribution_of_the_process(make: Any) -> None:
    draw = Draw(5)
    process, _, path = make(draw)
    image = torch.full((20_000, 1, 1, 1), 0.7)
    for high, low in itertools.pairwise(path[10:50:10]):
        state = process.noised(image, draw.randn(*image.shape), low)
        state = process.back(state, draw.randn(*image.shape), low, high)
        direct = process.noised(image, draw.randn(*image.shape), high)
        assert float(state.mean()) == pytest.approx(float(direct.mean()), abs=0.03)
        assert float(state.std()) == pytest.approx(float(direct.std()), abs=0.03)


def test_the_number_of_steps() -> None:
    assert [first_step(10, s) for s in (1.0, 0.5, 0.01)] == [0, 5, 9]
    for strength in (0.0, -0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="strength"):
            first_step(10, strength)


def test_a_mask_of_another_size_covers_every_touched_pixel() -> None:
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    mask[..., 3, 5] = True
    small = shrink_mask(mask, 4, 4)
    assert small.nonzero().tolist() == [[0, 0, 1, 2]]
    assert shrink_mask(mask, 8, 8) is mask


def test_slerp_keeps_ends_and_length() -> None:
    first, second = torch.randn(6, 3, 16, 16), torch.randn(6, 3, 16, 16)
    share = torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    mixed = slerp(first, second, share)
    assert torch.equal(mixed[0], first[0])
    assert torch.equal(mixed[-1], second[-1])
    # The mean of two normal vectors is shorter by a factor of sqrt(2).
    assert (mixed.flatten(1).std(1) - 1).abs().max() < 0.1
    assert torch.allclose(slerp(first, first, share), first, atol=1e-5)


def test_slerp_of_draws_is_normal() -> None:
    draws = [ImageDraw(seed, "coarse", 0, 1) for seed in (0, 1)]
    a, b = (d.randn(1, 4096).expand(3, -1) for d in draws)
    mixed = slerp(a, b, torch.tensor([0.25, 0.5, 0.75]))
    assert (mixed.std(1) - 1).abs().max() < 0.05
