"""Samplers of the reverse diffusion process.

A sampler is a generator function: it yields the image after each step and keeps none, so a
caller takes the last one, every one (a trajectory), or stops early. Its coefficients are Python
floats computed in float64 from the schedule; nothing in the loop waits for the device. To add one,
write the function and name it in ``SAMPLERS``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from torch import Tensor

__all__ = [
    "SAMPLERS",
    "Coefficients",
    "Denoiser",
    "Noise",
    "Sampler",
    "SamplerOptions",
    "Transition",
    "Variance",
    "ddim",
    "ddim_coefficients",
    "ddpm",
    "ddpm_coefficients",
    "final",
    "transitions",
]

Variance = Literal["small", "large"]


@dataclass(frozen=True, slots=True)
class Transition:
    """One step of the reverse process.

    Args:
        timestep: where the step starts.
        signal: ``alphas_cumprod`` there.
        next_signal: ``alphas_cumprod`` where it ends; 1.0 after the last step.
    """

    timestep: int
    signal: float
    next_signal: float

    @property
    def alpha(self) -> float:
        """The rate of the signal where the step starts."""
        return math.sqrt(self.signal)

    @property
    def sigma(self) -> float:
        """The rate of the noise where the step starts."""
        return math.sqrt(1 - self.signal)


class Noise(Protocol):
    """Where a sampler's random numbers come from, e.g. an :class:`~cascadezoo.draws.ImageDraw`."""

    def randn(self, *shape: int) -> Tensor:
        """Standard normal numbers."""
        ...


Denoiser = Callable[[Tensor, Transition], Tensor]
"""From x_t [N, C, H, W] and the step that starts there to the estimate of x0."""


@dataclass(frozen=True, slots=True)
class SamplerOptions:
    """What a sampler may be told; each heeds what concerns it.

    Args:
        eta: how much of DDPM's noise DDIM adds in each step, from 0 (none) to 1.
        variance: DDPM's fixed variance, the posterior's (small) or beta (large).
    """

    eta: float = 0.0
    variance: Variance = "small"


class Coefficients(NamedTuple):
    """The next image is ``x0 * x0_estimate + x * x_t + noise * standard_normal``."""

    x0: float
    x: float
    noise: float


def transitions(signal: Sequence[float], timesteps: Sequence[int]) -> list[Transition]:
    """The steps between chosen timesteps, and from the last of them to the clean image.

    Args:
        signal: ``alphas_cumprod`` of all timesteps.
        timesteps: those to visit, falling.
    """
    ends = [*(signal[t] for t in timesteps[1:]), 1.0]
    return [Transition(t, signal[t], end) for t, end in zip(timesteps, ends, strict=True)]


def ddpm_coefficients(step: Transition, variance: Variance = "small") -> Coefficients:
    """Ancestral sampling (Ho et al. 2020, eq. 7 and section 3.2) over any strided subset.

    Between timesteps that are not neighbours, beta is what the signal loses between them (Nichol &
    Dhariwal 2021, eq. 19). The step to the clean image adds no noise.
    """
    kept = step.signal / step.next_signal
    beta = 1 - kept
    noise, next_noise = 1 - step.signal, 1 - step.next_signal
    spread = 0.0
    if step.next_signal < 1:
        spread = beta if variance == "large" else beta * next_noise / noise
    return Coefficients(
        x0=math.sqrt(step.next_signal) * beta / noise,
        x=math.sqrt(kept) * next_noise / noise,
        noise=math.sqrt(spread),
    )


def ddim_coefficients(step: Transition, eta: float = 0.0) -> Coefficients:
    """Implicit sampling (Song et al. 2021, eqs. 12 and 16).

    The noise is taken from x_t and the estimate of x0, so a clipped estimate stays consistent.
    """
    noise, next_noise = 1 - step.signal, 1 - step.next_signal
    spread = eta**2 * (next_noise / noise) * (1 - step.signal / step.next_signal)
    direction = math.sqrt(max(next_noise - spread, 0.0) / noise)
    return Coefficients(
        x0=math.sqrt(step.next_signal) - direction * step.alpha,
        x=direction,
        noise=math.sqrt(spread),
    )


def ddpm(
    denoise: Denoiser, x: Tensor, path: Sequence[Transition], noise: Noise, options: SamplerOptions
) -> Iterator[Tensor]:
    """Ancestral sampling of Ho et al. 2020. See :class:`Sampler`."""
    return _linear(
        denoise, x, path, noise, [ddpm_coefficients(step, options.variance) for step in path]
    )


def ddim(
    denoise: Denoiser, x: Tensor, path: Sequence[Transition], noise: Noise, options: SamplerOptions
) -> Iterator[Tensor]:
    """Implicit sampling of Song et al. 2021; deterministic where eta is 0. See :class:`Sampler`."""
    return _linear(denoise, x, path, noise, [ddim_coefficients(step, options.eta) for step in path])


def _linear(
    denoise: Denoiser,
    x: Tensor,
    path: Sequence[Transition],
    noise: Noise,
    coefficients: Sequence[Coefficients],
) -> Iterator[Tensor]:
    for step, factor in zip(path, coefficients, strict=True):
        x = factor.x0 * denoise(x, step) + factor.x * x
        if factor.noise > 0:
            x = x + factor.noise * noise.randn(*x.shape)
        yield x


class Sampler(NamedTuple):
    """A sampler and its price.

    ``run(denoise, x, path, noise, options)`` takes the denoiser, x_T [N, C, H, W], the steps,
    the source of further noise and the options, and yields the image after each step.
    """

    run: Callable[[Denoiser, Tensor, Sequence[Transition], Noise, SamplerOptions], Iterator[Tensor]]
    evaluations: int = 1
    """How often a step calls the denoiser."""


SAMPLERS: Mapping[str, Sampler] = {"ddpm": Sampler(ddpm), "ddim": Sampler(ddim)}


def final(states: Iterator[Tensor]) -> Tensor:
    """The last image that a sampler yields.

    Raises:
        ValueError: it yields none.
    """
    last: Tensor | None = None
    for last in states:  # noqa: B007
        pass
    if last is None:
        raise ValueError("the sampler was given no steps")
    return last
