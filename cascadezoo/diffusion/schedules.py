"""Noise schedules as lists of float64 numbers. Free of torch, so that configs can use them.

A schedule is the list of ``betas`` of T timesteps: the share of the variance that each step of
the forward process replaces by noise (Ho et al. 2020). ``alphas_cumprod[t]`` is the variance that
the clean image keeps at timestep t; the noise has ``1 - alphas_cumprod[t]``.

A *level* is the amount of noise independent of a schedule: from 0 (clean) to 1 (pure noise), with
``alpha = cos(pi/2 * level)`` and ``sigma = sin(pi/2 * level)``, so ``alphas_cumprod`` is
``alpha**2``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise
from operator import mul
from typing import Literal, assert_never

__all__ = [
    "SamplingSchedule",
    "Spacing",
    "alphas_cumprod",
    "cosine_betas",
    "determined_timesteps",
    "interpolated_signal",
    "level_of",
    "linear_betas",
    "rescale_zero_terminal_snr",
    "sampling_signal",
    "signal_of",
    "spaced_timesteps",
    "terminal_signal_variance",
    "timestep_of",
]

Spacing = Literal["trailing", "leading", "linspace"]
SamplingSchedule = Literal["trained", "linear", "cosine", "karras", "log-snr"]

KARRAS_RHO = 7.0
"""The exponent of Karras et al. 2022 (table 1)."""

FAINTEST_DETERMINED = 4e-5
"""The signal variance below which a predicted noise does not determine the clean image.

An error of the predicted noise enters the estimate of x0 times sigma/alpha, which is 158 here. This
is where the linear schedule of DDPM ends (4.04e-5); the cosine schedule goes on to 2.4e-9, a factor
of 20,000.
"""


def linear_betas(timesteps: int, start: float = 1e-4, end: float = 0.02) -> list[float]:
    """Betas that rise linearly from ``start`` to ``end`` (Ho et al. 2020, section 4).

    The published end points are for 1000 timesteps; with fewer, the last step keeps most of
    the signal (see :func:`terminal_signal_variance`).

    Raises:
        ValueError: fewer than one timestep, or betas outside (0, 1).
    """
    _check_timesteps(timesteps)
    if not 0 < start < 1 or not 0 < end < 1:
        raise ValueError(f"betas must be in (0, 1), not {start} .. {end}")
    if timesteps == 1:
        return [start]
    return [start + (end - start) * t / (timesteps - 1) for t in range(timesteps)]


def cosine_betas(timesteps: int, offset: float = 0.008, limit: float = 0.999) -> list[float]:
    """Betas for which the signal follows a squared cosine (Nichol & Dhariwal 2021, eq. 17).

    Args:
        timesteps: T.
        offset: the paper's s, which prevents too small first betas.
        limit: the largest beta.

    Raises:
        ValueError: fewer than one timestep.
    """
    _check_timesteps(timesteps)

    def signal(time: float) -> float:
        return math.cos((time + offset) / (1 + offset) * math.pi / 2) ** 2

    return [
        min(1 - signal((t + 1) / timesteps) / signal(t / timesteps), limit)
        for t in range(timesteps)
    ]


def rescale_zero_terminal_snr(betas: Sequence[float]) -> list[float]:
    """Shift and scale a schedule so that its last timestep is pure noise.

    Lin et al. 2024, "Common Diffusion Noise Schedules and Sample Steps are Flawed", algorithm 1.
    The last beta becomes exactly 1. There, eps has no information about the image, so a network
    must predict v or x0.

    Raises:
        ValueError: fewer than two timesteps.
    """
    if len(betas) < 2:
        raise ValueError("rescaling to zero terminal SNR needs at least two timesteps")
    roots = [math.sqrt(signal) for signal in alphas_cumprod(betas)]
    first, last = roots[0], roots[-1]
    signals = [((root - last) * first / (first - last)) ** 2 for root in roots]
    ratios = [after / before for before, after in pairwise(signals)]
    return [1 - signals[0], *(1 - ratio for ratio in ratios)]


def alphas_cumprod(betas: Sequence[float]) -> list[float]:
    """The variance of the signal at each timestep: the cumulative product of ``1 - beta``."""
    return list(accumulate((1 - beta for beta in betas), mul))


def terminal_signal_variance(betas: Sequence[float]) -> float:
    """The variance of the signal at the last timestep; 0 for pure noise."""
    return alphas_cumprod(betas)[-1]


def level_of(signal: float) -> float:
    """The level, 0..1, at which the signal has this variance.

    Raises:
        ValueError: ``signal`` is not in 0..1.
    """
    if not 0 <= signal <= 1:
        raise ValueError(f"the variance of a signal must be in 0..1, not {signal:g}")
    return math.atan2(math.sqrt(1 - signal), math.sqrt(signal)) * 2 / math.pi


def signal_of(level: float) -> float:
    """The variance of the signal, 0..1, at a level; exactly 0 at level 1 and 1 at level 0.

    Raises:
        ValueError: ``level`` is not in 0..1.
    """
    if not 0 <= level <= 1:
        raise ValueError(f"a noise level must be in 0..1, not {level:g}")
    return math.sin((1 - level) * math.pi / 2) ** 2


def timestep_of(signal: Sequence[float], kept: float) -> float:
    """The time at or between timesteps at which the signal has a given variance.

    The variance is interpolated linearly between timesteps, as in continuous noise conditioning.

    Args:
        signal: ``alphas_cumprod`` of all timesteps.
        kept: the variance.

    Returns:
        A time, clipped to [0, T - 1].
    """
    if kept >= signal[0]:
        return 0.0
    for later, (before, after) in enumerate(pairwise(signal), start=1):
        if kept >= after:
            return later - (kept - after) / (before - after)
    return float(len(signal) - 1)


def spaced_timesteps(timesteps: int, steps: int, spacing: Spacing = "trailing") -> list[int]:
    """The timesteps of a sampler with ``steps`` steps, descending (Lin et al. 2024, table 2).

    Args:
        timesteps: T, the number of timesteps in training.
        steps: the number of timesteps to visit.
        spacing: ``trailing`` starts at T-1, the last trained timestep, as the paper recommends;
            ``leading`` ends at 0; ``linspace`` has both ends.

    Raises:
        ValueError: ``steps`` is not in 1..T.
    """
    _check_timesteps(timesteps)
    if not 1 <= steps <= timesteps:
        raise ValueError(f"{steps} steps do not fit into {timesteps} timesteps")
    if spacing == "trailing":
        return [round((steps - i) * timesteps / steps) - 1 for i in range(steps)]
    if spacing == "leading":
        return [i * (timesteps // steps) for i in reversed(range(steps))]
    if spacing == "linspace":
        if steps == 1:
            return [timesteps - 1]
        return [round(i * (timesteps - 1) / (steps - 1)) for i in reversed(range(steps))]
    assert_never(spacing)


def _check_timesteps(timesteps: int) -> None:
    if timesteps < 1:
        raise ValueError(f"a schedule needs at least one timestep, not {timesteps}")


def determined_timesteps(signal: Sequence[float], faintest: float = FAINTEST_DETERMINED) -> int:
    """How many timesteps, from the first, keep a signal variance of at least ``faintest``.

    Sampling with unclipped noise predictions starts at the last of them. The standard normal noise
    that it starts from lacks at most ``sqrt(faintest)`` of the image.

    Args:
        signal: ``alphas_cumprod`` of all timesteps.
        faintest: the smallest signal variance to start at.

    Returns:
        From 1 to ``len(signal)``.

    >>> determined_timesteps([0.9, 0.1, 1e-3, 1e-9])
    3
    """
    return max(1, sum(kept >= faintest for kept in signal))


def interpolated_signal(signal: Sequence[float], steps: int) -> list[float]:
    """The signal's variance at ``steps`` evenly spaced places, including the last timestep."""
    before = [1.0, *signal]
    rows = []
    for step in range(1, steps + 1):
        place = step * len(signal) / steps
        index = min(int(place), len(signal) - 1)
        share_of_next = place - index
        rows.append(before[index] + share_of_next * (before[index + 1] - before[index]))
    return rows


def sampling_signal(
    schedule: SamplingSchedule, steps: int, trained: Sequence[float]
) -> list[float]:
    """The signal variances at which the steps of sampling start, by a schedule chosen for sampling.

    A network that is trained at all noise levels can be sampled along other levels than those of
    its training (Chen et al. 2021, "WaveGrad", section 3.2; Ho et al. 2021, "Cascaded Diffusion
    Models", section 4.4). All schedules start at the noisiest trained level; but for ``trained``,
    they end at the cleanest timestep or before it.

    - ``linear`` and ``cosine``: the levels of DDPM's linear schedule, or of the cosine schedule, at
      evenly spaced times.
    - ``karras``: the ratio sigma/alpha between the noisiest and the cleanest trained level, spaced
      as in Karras et al. 2022 (eq. 5) with rho 7, which puts most steps at low noise.
    - ``log-snr``: the same ratio, spaced geometrically (Lu et al. 2022, "DPM-Solver", section 3.3).

    A ratio above 158 (see :data:`FAINTEST_DETERMINED`) is only that of the first step.

    Args:
        schedule: the name of the schedule; ``trained`` spaces the trained levels evenly.
        steps: the number of steps, at least 1.
        trained: ``alphas_cumprod`` of the timesteps that can be used.

    Returns:
        Up to ``steps`` variances, from the cleanest to the noisiest, all different.

    Raises:
        ValueError: fewer than one step.
    """
    if steps < 1:
        raise ValueError(f"sampling needs at least one step, not {steps}")
    if schedule == "trained":
        return interpolated_signal(trained, steps)
    if schedule == "linear":
        rows = interpolated_signal(alphas_cumprod(linear_betas(1000)), steps)
    elif schedule == "cosine":
        rows = interpolated_signal(alphas_cumprod(cosine_betas(1000)), steps)
    elif schedule == "karras":
        rows = _ratio_spaced(steps, trained, KARRAS_RHO)
    elif schedule == "log-snr":
        rows = _ratio_spaced(steps, trained, None)
    else:
        assert_never(schedule)
    limited = [max(trained[-1], min(kept, trained[0])) for kept in rows[:-1]]
    return list(dict.fromkeys([*limited, trained[-1]]))


def _ratio_spaced(steps: int, trained: Sequence[float], rho: float | None) -> list[float]:
    """Levels between the trained ones, spaced in sigma/alpha: by a power, or geometrically."""
    faintest = max(trained[-1], FAINTEST_DETERMINED)
    begin = [] if faintest == trained[-1] else [trained[-1]]
    count = steps - len(begin)
    low, high = (math.sqrt((1 - kept) / kept) for kept in (trained[0], faintest))
    if count < 2:
        return ([faintest] * count + begin)[-steps:]
    shares = [step / (count - 1) for step in range(count)]
    if rho is None:
        ratios = [low * (high / low) ** share for share in shares]
    else:
        first, last = low ** (1 / rho), high ** (1 / rho)
        ratios = [(first + share * (last - first)) ** rho for share in shares]
    return [1 / (1 + ratio**2) for ratio in ratios] + begin
