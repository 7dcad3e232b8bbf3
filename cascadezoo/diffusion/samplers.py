"""Samplers of the reverse diffusion process.

A sampler is a generator function: it yields the image after each step and keeps none, so a
caller can use the last image, every image (a trajectory), or stop early. Its coefficients are
Python floats computed in float64 from the levels; nothing in the loop waits for the device. All
samplers accept paths that start at pure noise (zero terminal SNR) or end before the clean image
(truncation). To add one, write the function and add it to ``SAMPLERS``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple, Protocol

from torch import Tensor

from cascadezoo.diffusion.levels import CLEAN, Level, restart_path, reverse_path

__all__ = [
    "CLEAN",
    "SAMPLERS",
    "Coefficients",
    "Denoised",
    "Denoiser",
    "Level",
    "Noise",
    "Sampler",
    "SamplerOptions",
    "Variance",
    "ddim",
    "ddim_coefficients",
    "ddpm",
    "ddpm_coefficients",
    "dpmpp_2m",
    "final",
    "heun",
    "restart_path",
    "reverse_path",
]

Variance = Literal["small", "large", "learned"]

# Heun's correction grows with the ratio by which a step lowers sigma/alpha, which is infinite at
# pure noise. Accurate steps are far below this limit.
STEEPEST = 32.0

# With fewer steps, the last step of DPM-Solver++ is more stable at first order.
FEW_STEPS = 15


class Noise(Protocol):
    """The random numbers of a sampler, e.g. an :class:`~cascadezoo.util.rng.ImageDraw`."""

    def randn(self, *shape: int) -> Tensor:
        """Standard normal numbers."""
        ...


class Denoised(NamedTuple):
    """The estimate of a network for a noised image.

    Args:
        x0: the estimate of the clean image, [N, C, H, W].
        spread: the position of a learned variance between its bounds, from -1 (the posterior's) to
            1 (beta), [N, C, H, W]; None if the network learns no variance.
    """

    x0: Tensor
    spread: Tensor | None = None


Denoiser = Callable[[Tensor, Level], Denoised]
"""Maps x_t [N, C, H, W] and its level to the estimate of x0."""


@dataclass(frozen=True, slots=True)
class SamplerOptions:
    """Options of samplers; each sampler uses those that apply to it.

    Args:
        eta: share of DDPM's noise that DDIM adds in each step, from 0 (none) to 1.
        variance: DDPM's variance: the posterior's (small), beta (large), or between them as
            predicted by the network (learned).
    """

    eta: float = 0.0
    variance: Variance = "small"


class Coefficients(NamedTuple):
    """The next image is ``x0 * x0_estimate + x * x_t + noise * standard_normal``."""

    x0: float
    x: float
    noise: float


def ddpm_coefficients(start: Level, end: Level, variance: Variance = "small") -> Coefficients:
    """Ancestral sampling (Ho et al. 2020, eq. 7 and section 3.2) over any strided subset.

    Between timesteps that are not neighbours, beta is the loss of signal between them (Nichol &
    Dhariwal 2021, eq. 19). The step to the clean image adds no noise. For a learned variance,
    ``noise`` is that of its lower bound, the posterior's.
    """
    kept = start.signal / end.signal
    beta = 1 - kept
    noise, next_noise = 1 - start.signal, 1 - end.signal
    spread = 0.0
    if end.signal < 1:
        spread = beta if variance == "large" else beta * next_noise / noise
    return Coefficients(
        x0=math.sqrt(end.signal) * beta / noise,
        x=math.sqrt(kept) * next_noise / noise,
        noise=math.sqrt(spread),
    )


def ddim_coefficients(start: Level, end: Level, eta: float = 0.0) -> Coefficients:
    """Implicit sampling (Song et al. 2021, eqs. 12 and 16).

    The noise is derived from x_t and the estimate of x0, so a clipped estimate stays consistent.
    """
    noise, next_noise = 1 - start.signal, 1 - end.signal
    spread = eta**2 * (next_noise / noise) * (1 - start.signal / end.signal)
    direction = math.sqrt(max(next_noise - spread, 0.0) / noise)
    return Coefficients(
        x0=end.alpha - direction * start.alpha,
        x=direction,
        noise=math.sqrt(spread),
    )


def ddpm(
    denoise: Denoiser, x: Tensor, path: Sequence[Level], noise: Noise, options: SamplerOptions
) -> Iterator[Tensor]:
    """Ancestral sampling of Ho et al. 2020. See :class:`Sampler`.

    A learned variance is a geometric interpolation of the posterior's and beta (Nichol & Dhariwal
    2021, eq. 15).

    Raises:
        ValueError: the variance is learned, but the denoiser returns no spread.
    """
    for start, end in pairwise(path):
        factor = ddpm_coefficients(start, end, options.variance)
        x0, spread = denoise(x, start)
        x = factor.x0 * x0 + factor.x * x
        if factor.noise > 0:
            fresh = noise.randn(*x.shape)
            if options.variance == "learned":
                if spread is None:
                    raise ValueError("a learned variance needs a denoiser that returns its spread")
                rise = math.log(ddpm_coefficients(start, end, "large").noise / factor.noise)
                fresh = fresh * ((spread + 1) * (rise / 2)).exp()
            x = x + factor.noise * fresh
        del x0, spread
        yield x


def ddim(
    denoise: Denoiser, x: Tensor, path: Sequence[Level], noise: Noise, options: SamplerOptions
) -> Iterator[Tensor]:
    """Implicit sampling of Song et al. 2021; deterministic if eta is 0. See :class:`Sampler`."""
    for start, end in pairwise(path):
        factor = ddim_coefficients(start, end, options.eta)
        x = factor.x0 * denoise(x, start).x0 + factor.x * x
        if factor.noise > 0:
            x = x + factor.noise * noise.randn(*x.shape)
        yield x


def dpmpp_2m(
    denoise: Denoiser, x: Tensor, path: Sequence[Level], noise: Noise, options: SamplerOptions
) -> Iterator[Tensor]:
    """DPM-Solver++(2M) of Lu et al. 2022 (algorithm 2): second order, one evaluation per step.

    Each step extrapolates the estimates of x0 at its start and at the start of the previous step,
    in half the log-SNR. These steps are first order, as in ddim: the first step; the second, if
    the first started at pure noise, with an infinite log-SNR; and the last, if it ends at the clean
    image or there are fewer than 15 steps. Draws no noise. See :class:`Sampler`.
    """
    steps = len(path) - 1
    before: Tensor | None = None
    past = 0.0  # length of the previous step in half the log-SNR
    for step, (start, end) in enumerate(pairwise(path), start=1):
        factor = ddim_coefficients(start, end)
        x0 = denoise(x, start).x0
        length = _half_log_snr(end) - _half_log_snr(start)
        mixed = x0
        last = step == steps and (end.signal == 1 or steps < FEW_STEPS)
        if before is not None and not last and math.isfinite(past):
            mixed = x0 + (length / past / 2) * (x0 - before)
        x = factor.x0 * mixed + factor.x * x
        before, past = x0, length
        del x0, mixed
        yield x


def heun(
    denoise: Denoiser, x: Tensor, path: Sequence[Level], noise: Noise, options: SamplerOptions
) -> Iterator[Tensor]:
    """Heun's method of Karras et al. 2022 (algorithm 1 without churn), second order.

    The paper integrates ``x / alpha`` over ``sigma / alpha``; written out for the
    variance-preserving image x, a step is an Euler step (which is ddim's) to
    ``x' = alpha' * x0 + sigma' * eps`` and the correction
    ``alpha' * (ratio - 1) / 2 * (x0' - x0)``, where ``ratio`` is how many times the step lowers
    ``sigma / alpha``. The step to the clean image has no correction, as in the paper; over a whole
    path of evenly spaced timesteps, this Euler step lowers the observed order to about 1.2. Nor has
    a step with a ratio above 32 a correction: it starts at pure noise or next to it (zero terminal
    SNR, the end of the cosine schedule), and the correction would be as large as the ratio. Draws
    no noise. See :class:`Sampler`.
    """
    for start, end in pairwise(path):
        factor = ddim_coefficients(start, end)
        x0 = denoise(x, start).x0
        x = factor.x0 * x0 + factor.x * x
        ratio = math.exp(_half_log_snr(end) - _half_log_snr(start)) if end.signal < 1 else math.inf
        if ratio <= STEEPEST:
            x = x + (end.alpha * (ratio - 1) / 2) * (denoise(x, end).x0 - x0)
        del x0
        yield x


def _half_log_snr(level: Level) -> float:
    if level.signal == 0:
        return -math.inf
    return math.inf if level.signal == 1 else math.log(level.alpha / level.sigma)


def _once(steps: int) -> int:
    return steps


def _twice(steps: int) -> int:
    return 2 * steps - 1


class Sampler(NamedTuple):
    """A sampler and its cost.

    ``run(denoise, x, path, noise, options)`` takes the denoiser, x [N, C, H, W] at the path's first
    level, the levels to visit (see :func:`reverse_path`), the source of further noise and the
    options. It yields the image at each level but the first.
    """

    run: Callable[[Denoiser, Tensor, Sequence[Level], Noise, SamplerOptions], Iterator[Tensor]]
    evaluations: Callable[[int], int] = _once
    """Maximum number of calls of the denoiser for a number of steps to the clean image."""


SAMPLERS: Mapping[str, Sampler] = {
    "ddpm": Sampler(ddpm),
    "ddim": Sampler(ddim),
    "dpmpp-2m": Sampler(dpmpp_2m),
    "heun": Sampler(heun, _twice),
}


def final(states: Iterator[Tensor], watch: Callable[[Tensor], None] | None = None) -> Tensor:
    """The last image that a sampler yields.

    Args:
        states: the images of a sampler or solver.
        watch: called with each image; copy an image to keep it.

    Raises:
        ValueError: there are no images.
    """
    last: Tensor | None = None
    for last in states:
        if watch is not None:
            watch(last)
    if last is None:
        raise ValueError("the sampler has no steps")
    return last
