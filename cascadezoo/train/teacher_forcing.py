"""Teacher forcing: whether a stage trains on the true upstream image or on the estimate.

Williams and Zipser 1989; falling over the training as in scheduled sampling (Bengio et al. 2015).
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
    """What a stage gets: all truth, all estimate, or the truth where ``mask`` says."""

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
    """Draw for a batch.

    Args:
        spec: whether each image draws for itself.
        p: the probability of the truth.
        key: what the choice of a whole batch follows from; made on the host, so that a step need
            not wait for the device to know whether it can skip the stages before.
        draw: the numbers for a choice by image.
        n: the local batch size.
    """
    if p >= 1.0 or p <= 0.0:
        return Choice(all_truth=p >= 1.0, all_estimate=p <= 0.0)
    if spec.per == "batch":
        truth = random.Random(derive_seed(*key)).random() < p  # noqa: S311 - not for secrets
        return Choice(all_truth=truth, all_estimate=not truth)
    return Choice(all_truth=False, all_estimate=False, mask=draw.rand(n) < p)


def mix(choice: Choice, truth: Tensor | None, estimate: Tensor | None) -> Tensor:
    """The upstream image that a choice makes of truth and estimate, [N, C, H, W].

    Raises:
        ValueError: the one that is chosen is not there.
    """
    if estimate is not None and choice.mask is None and not choice.all_truth:
        return estimate
    if truth is None:
        raise ValueError("there is neither a true upstream image nor an estimate of it")
    if choice.all_truth or estimate is None or choice.mask is None:
        return truth
    return torch.where(choice.mask[:, None, None, None], truth, estimate)
