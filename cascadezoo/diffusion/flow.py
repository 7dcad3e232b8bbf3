"""Rectified flow (Liu et al. 2023, "Flow Straight and Fast").

Time runs from 0 (data) to 1 (noise): ``x_t = (1 - t) * x0 + t * noise``, along which the velocity
``dx/dt = noise - x0`` is constant. Sampling integrates the predicted velocity from 1 to 0. To add a
solver, write the generator function and name it in ``SOLVERS``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

__all__ = [
    "SOLVERS",
    "Solver",
    "Velocity",
    "data_from_velocity",
    "euler",
    "even_times",
    "interpolate",
    "logit_normal_times",
    "uniform_times",
    "velocity_target",
]

Velocity = Callable[[Tensor, float], Tensor]
"""From x_t [N, C, H, W] and the time t to the velocity there."""


class Draws(Protocol):
    """Where random times come from, e.g. a :class:`~cascadezoo.draws.Draw`."""

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
    """Where the straight path through x_t [N, C, H, W] at ``times`` [N] starts: x0."""
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
        deviation: of the logit; larger spreads the times to both ends.
    """
    return torch.sigmoid(mean + deviation * draw.randn(count))


def even_times(steps: int) -> list[float]:
    """The ``steps + 1`` times of a sampling, evenly from 1 to 0."""
    return [1 - step / steps for step in range(steps + 1)]


def euler(velocity: Velocity, x: Tensor, times: Sequence[float]) -> Iterator[Tensor]:
    """Euler's method. See :class:`Solver`."""
    for time, end in pairwise(times):
        x = x + (end - time) * velocity(x, time)
        yield x


class Solver(NamedTuple):
    """A solver and its price.

    ``run(velocity, x, times)`` takes the velocity field, x at the first time [N, C, H, W] and the
    times to visit, and yields the image after each step.
    """

    run: Callable[[Velocity, Tensor, Sequence[float]], Iterator[Tensor]]
    evaluations: int = 1
    """How often a step asks for the velocity."""


SOLVERS: Mapping[str, Solver] = {"euler": Solver(euler)}
