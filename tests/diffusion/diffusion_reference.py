"""Shared by tests of samplers: schedules, predictions, and runs of ours and of diffusers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from cascadezoo.diffusion.process import Prediction, x0_from_prediction
from cascadezoo.diffusion.samplers import (
    SAMPLERS,
    Denoised,
    Level,
    SamplerOptions,
    reverse_path,
)
from cascadezoo.diffusion.schedules import (
    alphas_cumprod,
    cosine_betas,
    linear_betas,
    rescale_zero_terminal_snr,
    signal_of,
)

NAMES = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
SHAPE = (2, 3, 4, 4)
SCHEDULES = {
    "linear": alphas_cumprod(linear_betas(1000)),
    "cosine": alphas_cumprod(cosine_betas(200)),
    "zero-terminal": alphas_cumprod(rescale_zero_terminal_snr(linear_betas(100))),
}
CASES = [(s, p) for s in SCHEDULES for p in NAMES if (s, p) != ("zero-terminal", "eps")]


class Seeded:
    """Float64 noise, the same that diffusers draws from an equal generator."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def randn(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self.generator, dtype=torch.float64)


class Refuses:
    """Noise that raises when it is drawn."""

    def randn(self, *shape: int) -> torch.Tensor:
        raise RuntimeError("drew noise")


def start() -> torch.Tensor:
    """The same pure noise for all tests."""
    return Seeded(4).randn(*SHAPE)


def network(x: torch.Tensor, time: float) -> torch.Tensor:
    """Any smooth function of image and time, 0..1, serves as the network's prediction."""
    return torch.tanh(1.3 * x - 0.2) * (0.4 + time)


def spread_network(x: torch.Tensor, time: float) -> torch.Tensor:
    """Any smooth function serves as the learned variance; it need not keep to -1..1."""
    return 1.2 * torch.sin(2 * x + time)


def ours(
    sampler: str,
    signal: Sequence[float],
    visited: Sequence[int],
    prediction: Prediction,
    *,
    options: SamplerOptions = SamplerOptions(),  # noqa: B008
    clip: bool = False,
    stop: float = 1.0,
    outputs: Sequence[torch.Tensor] | None = None,
) -> list[torch.Tensor]:
    """Our trajectory, from the given predictions if any, otherwise from the network."""
    given = None if outputs is None else iter(outputs)

    def denoise(x: torch.Tensor, level: Level) -> Denoised:
        time = level.time / len(signal)
        output = network(x, time) if given is None else next(given)
        x0 = x0_from_prediction(prediction, x, output, level.alpha, level.sigma)
        return Denoised(x0.clamp(-1, 1) if clip else x0, spread_network(x, time))

    path = reverse_path(signal, visited, stop)
    return list(SAMPLERS[sampler].run(denoise, start(), path, Seeded(5), options))


def assert_close(
    mine: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor], tolerance: float
) -> None:
    """Every state within the tolerance, relative to its largest value where that is above 1."""
    assert len(mine) == len(wanted)
    for got, want in zip(mine, wanted, strict=True):
        scale = want.abs().max().clamp(min=1)
        assert (got - want).abs().max() / scale < tolerance


def float64_signal(scheduler: Any, signal: Sequence[float]) -> None:
    """Have a scheduler of diffusers use our schedule, in float64."""
    scheduler.alphas_cumprod = torch.tensor(signal, dtype=torch.float64)


def even_path(steps: int, first: float, last: float) -> list[Level]:
    """Levels at even distances, without a schedule."""
    levels = [first + (last - first) * i / steps for i in range(steps + 1)]
    return [Level(level, signal_of(level)) for level in levels]


MEAN, SPREAD = 0.3, 0.5


def gaussian(x: torch.Tensor, level: Level) -> Denoised:
    """The best denoiser of data distributed as N(0.3, 0.5**2)."""
    gain = level.alpha * SPREAD**2 / (level.signal * SPREAD**2 + 1 - level.signal)
    return Denoised(MEAN + gain * (x - level.alpha * MEAN))


def gaussian_solution(x: torch.Tensor, begin: Level, end: Level) -> torch.Tensor:
    """The result of the probability flow of that data from x, which keeps its quantile."""
    before = (begin.signal * SPREAD**2 + 1 - begin.signal) ** 0.5
    after = (end.signal * SPREAD**2 + 1 - end.signal) ** 0.5
    return end.alpha * MEAN + after / before * (x - begin.alpha * MEAN)
