"""A score of each image, and the mean of it with its standard error."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from cascadezoo.evaluate.metrics.base import REDRAWN, Measured

__all__ = ["TOLERANCE", "mean_of", "share_of"]

TOLERANCE = REDRAWN
"""By how many standard errors a mean may differ when it is measured again."""


def mean_of(scores: Tensor, *, least: float = 0.0, **rest: Any) -> Measured:
    """The mean of scores that are independent of each other.

    Args:
        scores: finite, [N], N at least 1.
        least: the least tolerance: what rounding on another machine may do.
        rest: further fields of the figure.

    Returns:
        The mean; its spread is the standard error of the mean, unknown for a single score, and
        its tolerance :data:`TOLERANCE` of them.
    """
    scores = scores.double()
    std = None
    if len(scores) > 1:
        std = float(scores.std()) / math.sqrt(len(scores))
    tolerance = None if std is None else max(TOLERANCE * std, least)
    return Measured(float(scores.mean()), std, tolerance=tolerance, **rest)


def share_of(right: Tensor, **rest: Any) -> Measured:
    """A share with its binomial standard error.

    Args:
        right: bool [N], N at least 1.
        rest: further fields of the figure.
    """
    count = len(right)
    share = float(right.double().mean())
    # Of Agresti and Coull's estimate, so that a share of 0 or 1 is not told without any spread.
    shrunk = (share * count + 2) / (count + 4)
    std = math.sqrt(shrunk * (1 - shrunk) / (count + 4))
    return Measured(share, std, **{"tolerance": TOLERANCE * std, **rest})
