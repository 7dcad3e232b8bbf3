"""Editing of existing images by a diffusion or a flow.

Image-to-image starts the reverse process at a noised image (Meng et al. 2022, "SDEdit"). Inpainting
replaces the known pixels of each state by the noised image (Lugmayr et al. 2022, "RePaint").
Interpolation mixes the noise of two images on the sphere (Song et al. 2021, "DDIM", section 5.3).
The loop is the same for diffusion and flow; a :class:`Process` states how each adds noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from cascadezoo.diffusion.levels import Level
from cascadezoo.diffusion.samplers import Noise

__all__ = [
    "DIFFUSION",
    "FLOW",
    "Process",
    "edited",
    "first_step",
    "shrink_mask",
    "slerp",
]

L = TypeVar("L")

PARALLEL = 1e-4
"""Below this sine of the angle between two vectors, :func:`slerp` is linear."""


@dataclass(frozen=True, slots=True)
class Process(Generic[L]):
    """A forward process between the levels of a path.

    Args:
        noised: maps a clean image, standard normal noise and a level to the state at that level.
        back: maps a state, standard normal noise, its level and a noisier level to a state at the
            noisier level, with the distribution of the forward process.
    """

    noised: Callable[[Tensor, Tensor, L], Tensor]
    back: Callable[[Tensor, Tensor, L, L], Tensor]


def _diffusion_noised(image: Tensor, noise: Tensor, level: Level) -> Tensor:
    return level.alpha * image + level.sigma * noise


def _diffusion_back(state: Tensor, noise: Tensor, low: Level, high: Level) -> Tensor:
    kept = high.signal / low.signal
    return math.sqrt(kept) * state + math.sqrt(1 - kept) * noise


def _flow_noised(image: Tensor, noise: Tensor, time: float) -> Tensor:
    return (1 - time) * image + time * noise


def _flow_back(state: Tensor, noise: Tensor, low: float, high: float) -> Tensor:
    kept = (1 - high) / (1 - low)
    return kept * state + math.sqrt(max(high**2 - (kept * low) ** 2, 0.0)) * noise


DIFFUSION: Process[Level] = Process(_diffusion_noised, _diffusion_back)
"""The variance-preserving process (Ho et al. 2020, eqs. 2 and 4)."""

FLOW: Process[float] = Process(_flow_noised, _flow_back)
"""The straight path of rectified flow (Liu et al. 2023, eq. 1), with new noise at each time."""


def first_step(steps: int, strength: float) -> int:
    """The number of steps that image-to-image leaves out of ``steps``.

    At least one step is left for a strength above 0 (Meng et al. 2022 call the strength t0).

    Raises:
        ValueError: ``strength`` is not in (0, 1].
    """
    if not 0 < strength <= 1:
        raise ValueError(f"the strength must be above 0 and at most 1, not {strength:g}")
    return steps - max(1, round(steps * strength))


def edited(
    process: Process[L],
    run: Callable[[Tensor, Sequence[L]], Iterator[Tensor]],
    path: Sequence[L],
    image: Tensor,
    noise: Tensor,
    draw: Noise,
    *,
    strength: float = 1.0,
    mask: Tensor | None = None,
    resamplings: int = 1,
) -> Iterator[Tensor]:
    """The states of an edit, after each step; the last is the edited image.

    With strength 1 and no mask they equal the states of sampling from ``noise``. With a mask, each
    step is RePaint's algorithm 1 with jumps of one step: the sampler's step, then the known pixels
    are set to the noised image, then noise is added and the step is repeated. Each step starts
    without the memory of a multistep sampler, which is then of first order.

    Args:
        process: the forward process.
        run: a sampler: maps a state and the levels to visit to the state at each level but the
            first.
        path: the levels of sampling in order of decreasing noise, at least two.
        image: the clean image, [N, C, H, W].
        noise: standard normal, of the same shape: the start of sampling.
        draw: further random numbers.
        strength: the share of the steps that are run, in (0, 1].
        mask: bool [N, 1, H, W], True for pixels to redraw; None redraws all.
        resamplings: how often each step is run with a mask, at least 1.
    """
    part = path[first_step(len(path) - 1, strength) :]
    state = noise if strength == 1 else process.noised(image, noise, part[0])
    if mask is None:
        yield from run(state, part)
        return
    for number, (high, low) in enumerate(pairwise(part), start=2):
        last = number == len(part)
        for again in reversed(range(resamplings)):
            (redrawn,) = run(state, (high, low))
            known = image if last else process.noised(image, draw.randn(*image.shape), low)
            state = torch.where(mask, redrawn, known)
            if again:
                state = process.back(state, draw.randn(*image.shape), low, high)
        yield state


def shrink_mask(mask: Tensor, height: int, width: int) -> Tensor:
    """A mask at another size: a pixel is redrawn if any part of its area is.

    Args:
        mask: bool [N, 1, H, W].
        height: of the result in pixels.
        width: of the result in pixels.

    Returns:
        bool [N, 1, height, width].
    """
    if mask.shape[-2:] == (height, width):
        return mask
    return F.adaptive_max_pool2d(mask.float(), (height, width)) > 0


def slerp(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """Spherical interpolation of rows (Shoemake 1985; Song et al. 2021, appendix D.5).

    A mixture of two standard normal rows has the length of such a row, which the mean of the two
    has not.

    Args:
        first: [N, ...].
        second: of the same shape.
        share: [N], 0 for ``first`` and 1 for ``second``; these ends are exact.

    Returns:
        [N, ...].
    """
    a, b = first.flatten(1), second.flatten(1)
    cosine = F.cosine_similarity(a, b, dim=1).clamp(-1, 1)
    angle = torch.acos(cosine)[:, None]
    sine, t = torch.sin(angle), share.to(a)[:, None]
    curved = (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / sine
    mixed = torch.where(sine > PARALLEL, curved, torch.lerp(a, b, t))
    mixed = torch.where(t <= 0, a, torch.where(t >= 1, b, mixed))
    return mixed.view_as(first)
