"""Teacher forcing: whether a stage trains on the true upstream image or on the estimate.

Williams and Zipser 1989; decreases during training as in scheduled sampling (Bengio et al. 2015).
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from cascadezoo.spec import TeacherForcing
from cascadezoo.util.rng import Draw, derive_seed

__all__ = ["Choice", "choose", "mix", "probability"]


@dataclass(slots=True)
class Choice:
    """The input of a stage: all truth, all estimate, or the truth for images in ``mask``."""

    all_truth: bool
    all_estimate: bool
    mask: Tensor | None = None


def probability(spec: TeacherForcing, step: int, total: int) -> float:
    """The probability of the truth at a step, linear from ``start`` to ``end`` over the phase."""
    share = step / (total - 1) if total > 1 else 0.0
    return spec.start + (spec.end - spec.start) * share


def choose(
    spec: TeacherForcing, p: float, key: tuple[str | int, ...], draw: Draw, n: int
) -> Choice:
    """Draw the choice for a batch.

    Args:
        spec: whether to choose per image or per batch.
        p: the probability of the truth.
        key: the key of a choice per batch; drawn on the host, so that a step can skip earlier
            stages without waiting for the device.
        draw: the random numbers of a choice per image.
        n: the local batch size.
    """
    if p >= 1.0 or p <= 0.0:
        return Choice(all_truth=p >= 1.0, all_estimate=p <= 0.0)
    if spec.per == "batch":
        truth = random.Random(derive_seed(*key)).random() < p  # noqa: S311 - not for secrets
        return Choice(all_truth=truth, all_estimate=not truth)
    return Choice(all_truth=False, all_estimate=False, mask=draw.rand(n) < p)


def mix(choice: Choice, truth: Tensor | None, estimate: Tensor | None) -> Tensor:
    """Combine true upstream images and estimates by a choice, [N, C, H, W].

    Raises:
        ValueError: the chosen images are missing.
    """
    if estimate is not None and choice.mask is None and not choice.all_truth:
        return estimate
    if truth is None:
        raise ValueError("neither true upstream images nor estimates are given")
    if choice.all_truth or estimate is None or choice.mask is None:
        return truth
    return torch.where(choice.mask[:, None, None, None], truth, estimate)
