"""Means and shares with their standard errors."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from cascadezoo.evaluate.metrics.base import REDRAWN, Measured

__all__ = ["TOLERANCE", "mean_of", "share_of", "share_with_error"]

TOLERANCE = REDRAWN
"""The tolerance of a mean or share, in standard errors."""


def mean_of(scores: Tensor, *, min_tolerance: float = 0.0, **rest: Any) -> Measured:
    """The mean of independent scores with its standard error.

    Args:
        scores: finite scores, [N], N at least 1.
        min_tolerance: the minimum tolerance, for rounding differences between machines.
        rest: further fields of the result.

    Returns:
        The mean. Its spread is the standard error of the mean, or None for a single score. Its
        tolerance is :data:`TOLERANCE` standard errors.
    """
    scores = scores.double()
    std = None
    if len(scores) > 1:
        std = float(scores.std()) / math.sqrt(len(scores))
    tolerance = None if std is None else max(TOLERANCE * std, min_tolerance)
    return Measured(float(scores.mean()), std, tolerance=tolerance, **rest)


def share_of(values: Tensor, **rest: Any) -> Measured:
    """The share of True values with its binomial standard error.

    Args:
        values: bool [N], N at least 1.
        rest: further fields of the result.
    """
    return share_with_error(float(values.double().mean()), len(values), **rest)


def share_with_error(share: float, count: int, **rest: Any) -> Measured:
    """A share with its binomial standard error (Agresti and Coull 1998).

    The standard error is above 0 even for shares of 0 and 1.

    Args:
        share: the share, in [0, 1].
        count: the number of values, at least 1.
        rest: further fields of the result.
    """
    shrunk = (share * count + 2) / (count + 4)
    std = math.sqrt(shrunk * (1 - shrunk) / (count + 4))
    return Measured(share, std, tolerance=TOLERANCE * std, **rest)
