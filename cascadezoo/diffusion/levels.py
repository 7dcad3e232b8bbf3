"""Noise levels, and the path of levels that a sampler visits. Free of torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cascadezoo.diffusion.schedules import level_of, signal_of, timestep_of

__all__ = ["CLEAN", "Level", "restart_path", "reverse_path"]


@dataclass(frozen=True, slots=True)
class Level:
    """The noise level of an image: ``x = alpha * x0 + sigma * eps``.

    Args:
        time: the time input of the network; a timestep, or between two.
        signal: the variance that the clean image keeps (``alphas_cumprod``), from 1 (clean) to 0.
    """

    time: float
    signal: float

    @property
    def alpha(self) -> float:
        """The rate of the signal."""
        return math.sqrt(self.signal)

    @property
    def sigma(self) -> float:
        """The rate of the noise."""
        return math.sqrt(1 - self.signal)

    @property
    def level(self) -> float:
        """The level independent of a schedule: 0 is clean, 1 pure noise."""
        return level_of(self.signal)


CLEAN = Level(time=0.0, signal=1.0)
"""The level without noise."""


def reverse_path(
    signal: Sequence[float], timesteps: Sequence[int], stop: float = 1.0
) -> list[Level]:
    """The levels that sampling visits, from noise to the clean image or to a chosen level.

    Stopping early gives the noisy image of truncated conditioning augmentation (Ho et al. 2021,
    "Cascaded Diffusion Models", section 3.2).

    Args:
        signal: ``alphas_cumprod`` of all timesteps.
        timesteps: the timesteps to visit, in descending order.
        stop: the signal variance at the end; 1 for the clean image. Timesteps that are not noisier
            are left out. If it is between two timesteps, the time of the end is, too.

    Returns:
        At least two levels in order of decreasing noise; the last is the end, and each of the
        others starts a step.

    Raises:
        ValueError: ``stop`` is not in 0..1, or no timestep is noisier.
    """
    if not 0 <= stop <= 1:
        raise ValueError(f"the final signal must be in 0..1, not {stop:g}")
    visited = [Level(float(t), signal[t]) for t in timesteps if signal[t] < stop]
    if not visited:
        raise ValueError(f"no timestep is noisier than a signal of {stop:g}")
    end = CLEAN if stop == 1 else Level(timestep_of(signal, stop), stop)
    return [*visited, end]


def restart_path(path: Sequence[Level], level: float) -> list[Level]:
    """The end of a path, from its noisiest level that is at most ``level``.

    Ho et al. 2021 ("Cascaded Diffusion Models", section 4.2) add noise to finished samples up to a
    timestep and run the reverse process again from there. Timestep 2000 of their 4000 is level
    0.504.

    Args:
        path: the levels of sampling; see :func:`reverse_path`.
        level: the noise level to start again at, from 0 (clean) to 1 (pure noise).

    Returns:
        At least two levels, or none if every step of the path starts at a noisier level.

    >>> path = [Level(2.0, 0.1), Level(1.0, 0.5), CLEAN]
    >>> [at.time for at in restart_path(path, 0.5)]
    [1.0, 0.0]
    """
    signal = signal_of(level)
    # A level and its signal differ by rounding, so that a level of the path finds itself.
    rest = [at for at in path if at.signal >= signal - 1e-12]
    return rest if len(rest) > 1 else []
