"""Rectified flow (Liu et al. 2023, "Flow Straight and Fast").

Time runs from 0 (data) to 1 (noise): ``x_t = (1 - t) * x0 + t * noise``, along which the velocity
``dx/dt = noise - x0`` is constant. Sampling integrates the predicted velocity from 1 to 0. To add a
solver, write the generator function and add it to ``SOLVERS``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from cascadezoo.diffusion.schedules import signal_of

__all__ = [
    "SOLVERS",
    "Solver",
    "Velocity",
    "data_from_velocity",
    "euler",
    "even_times",
    "heun",
    "interpolate",
    "level_at",
    "logit_normal_times",
    "midpoint",
    "preserved",
    "time_of",
    "uniform_times",
    "velocity_target",
]

Velocity = Callable[[Tensor, float], Tensor]
"""Maps x_t [N, C, H, W] and the time t to the velocity."""


class Draws(Protocol):
    """A source of random numbers, e.g. a :class:`~cascadezoo.util.rng.Draw`."""

    def rand(self, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1)."""
        ...

    def randn(self, *shape: int) -> Tensor:
        """Standard normal numbers."""
        ...


def interpolate(x0: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    """The point x_t of the straight path (Liu et al. 2023, eq. 1).

    Args:
        x0: clean images, [N, C, H, W].
        noise: standard normal, of the same shape.
        times: [N], in [0, 1].
    """
    return torch.lerp(x0, noise, times.view(-1, 1, 1, 1))


def velocity_target(x0: Tensor, noise: Tensor) -> Tensor:
    """The velocity of the straight path, the same at every time."""
    return noise - x0


def data_from_velocity(x_t: Tensor, velocity: Tensor, times: Tensor) -> Tensor:
    """The start x0 of the straight path through x_t [N, C, H, W] at ``times`` [N]."""
    return x_t - times.view(-1, 1, 1, 1) * velocity


def uniform_times(draw: Draws, count: int) -> Tensor:
    """Times [N], uniform in [0, 1)."""
    return draw.rand(count)


def logit_normal_times(
    draw: Draws, count: int, mean: float = 0.0, deviation: float = 1.0
) -> Tensor:
    """Times [N] in (0, 1) whose logit is normal: most in the middle (Esser et al. 2024, eq. 19).

    Args:
        draw: the random numbers.
        count: N.
        mean: of the logit; above 0 favours noise, below 0 data.
        deviation: standard deviation of the logit; a larger value moves times to both ends.
    """
    return torch.sigmoid(mean + deviation * draw.randn(count))


def even_times(steps: int, end: float = 0.0) -> list[float]:
    """The ``steps + 1`` times of sampling, evenly spaced from 1 to ``end``.

    Raises:
        ValueError: fewer than one step, or an end outside [0, 1).
    """
    if steps < 1:
        raise ValueError(f"sampling needs at least one step, not {steps}")
    if not 0 <= end < 1:
        raise ValueError(f"sampling must end at a time in [0, 1), not {end:g}")
    return [1 - (1 - end) * step / steps for step in range(steps)] + [end]


def time_of(level: float) -> float:
    """The time with the signal-to-noise ratio of a level, ``sigma / (alpha + sigma)``; 0..1.

    Raises:
        ValueError: ``level`` is not in 0..1.
    """
    signal = signal_of(level)
    alpha, sigma = math.sqrt(signal), math.sqrt(1 - signal)
    return sigma / (alpha + sigma)


def level_at(time: float) -> float:
    """The noise level, 0..1, with the signal-to-noise ratio of a time; inverse of :func:`time_of`.

    Raises:
        ValueError: ``time`` is not in 0..1.
    """
    if not 0 <= time <= 1:
        raise ValueError(f"the time of a flow must be in 0..1, not {time:g}")
    return math.atan2(time, 1 - time) * 2 / math.pi


def preserved(x_t: Tensor, time: float) -> Tensor:
    """x_t [N, C, H, W], scaled to ``alpha * x0 + sigma * noise`` with squares that add up to 1.

    alpha and sigma are those of the level at that time (:func:`level_at`).
    """
    return x_t / math.hypot(1 - time, time)


def euler(velocity: Velocity, x: Tensor, times: Sequence[float]) -> Iterator[Tensor]:
    """Euler's method, first order. See :class:`Solver`."""
    for time, end in pairwise(times):
        x = x + (end - time) * velocity(x, time)
        yield x


def midpoint(velocity: Velocity, x: Tensor, times: Sequence[float]) -> Iterator[Tensor]:
    """The explicit midpoint method, second order, two evaluations per step. See :class:`Solver`."""
    for time, end in pairwise(times):
        half = (end - time) / 2
        x = x + 2 * half * velocity(x + half * velocity(x, time), time + half)
        yield x


def heun(velocity: Velocity, x: Tensor, times: Sequence[float]) -> Iterator[Tensor]:
    """Heun's method, second order, two evaluations per step. See :class:`Solver`.

    A step to time 0 is an Euler step: at time 0 no noise is left to predict a velocity from (as in
    Karras et al. 2022, algorithm 1, for the step to the clean image).
    """
    for time, end in pairwise(times):
        slope = velocity(x, time)
        ahead = x + (end - time) * slope
        if end > 0:
            ahead = x + ((end - time) / 2) * (slope + velocity(ahead, end))
        x = ahead
        del slope, ahead
        yield x


def _once(steps: int) -> int:
    return steps


def _twice(steps: int) -> int:
    return 2 * steps


def _twice_but_last(steps: int) -> int:
    return 2 * steps - 1


class Solver(NamedTuple):
    """A solver and its cost.

    ``run(velocity, x, times)`` takes the velocity field, x at the first time [N, C, H, W] and the
    times in descending order, and yields the image at each time but the first.
    """

    run: Callable[[Velocity, Tensor, Sequence[float]], Iterator[Tensor]]
    evaluations: Callable[[int], int] = _once
    """Number of velocity evaluations for a number of steps that end at time 0."""


SOLVERS: Mapping[str, Solver] = {
    "euler": Solver(euler),
    "midpoint": Solver(midpoint, _twice),
    "heun": Solver(heun, _twice_but_last),
}
