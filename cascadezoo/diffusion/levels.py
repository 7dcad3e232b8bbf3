"""Noise levels, and the path of levels that a sampler walks. Free of torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cascadezoo.diffusion.schedules import level_of, timestep_of

__all__ = ["CLEAN", "Level", "reverse_path"]


@dataclass(frozen=True, slots=True)
class Level:
    """How noisy an image is: ``x = alpha * x0 + sigma * eps``.

    Args:
        time: what the network is told; a timestep, whole or between two.
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
        """The same without a schedule: 0 is clean, 1 pure noise."""
        return level_of(self.signal)


CLEAN = Level(time=0.0, signal=1.0)
"""No noise at all."""


def reverse_path(
    signal: Sequence[float], timesteps: Sequence[int], stop: float = 1.0
) -> list[Level]:
    """The levels that sampling visits, from noise to the clean image or to a chosen level.

    Stopping early gives the noisy image of truncated conditioning augmentation (Ho et al. 2021,
    "Cascaded Diffusion Models", section 4.2).

    Args:
        signal: ``alphas_cumprod`` of all timesteps.
        timesteps: those to visit, falling.
        stop: the signal variance to end at; 1 for the clean image. Timesteps that are not noisier
            are left out. It need not be that of a timestep: the end is then told as a time between
            two.

    Returns:
        At least two levels, ever less noisy; the last is the end, and each but that one starts a
        step.

    Raises:
        ValueError: ``stop`` does not lie in 0..1, or no timestep is noisier than it.
    """
    if not 0 <= stop <= 1:
        raise ValueError(f"the signal to stop at lies in 0..1, not {stop:g}")
    visited = [Level(float(t), signal[t]) for t in timesteps if signal[t] < stop]
    if not visited:
        raise ValueError(f"no timestep to visit is noisier than a signal of {stop:g}")
    end = CLEAN if stop == 1 else Level(timestep_of(signal, stop), stop)
    return [*visited, end]
