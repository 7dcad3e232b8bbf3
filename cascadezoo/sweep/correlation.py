"""Does the parameter count or the combination matter? Rank correlation of parameters and KID."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

__all__ = ["Correlation", "Within", "correlate", "spearman"]

EXACT = 8
"""All permutations are tried up to this number of points: 40,320 of 8."""

Method = Literal["exact", "t"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Within:
    """The correlation among the groups that share one label of one axis.

    Args:
        axis: the axis, e.g. ``generator``.
        label: its label.
        n: number of groups.
        rho: Spearman's rank correlation of parameters and KID; None if all parameter counts or
            all KIDs are equal, or for fewer than three groups.
        p: two-sided p-value.
        method: see :class:`Correlation`.
    """

    axis: str
    label: str
    n: int
    rho: float | None
    p: float | None
    method: Method | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Correlation:
    """Parameter count against KID.

    Cells that differ only in seeds count as one point, with the mean of their KIDs. They share
    their parameter count, so separate points would overstate the significance.

    Args:
        n: number of points.
        rho: Spearman's rank correlation; None if it is not defined (all counts are equal).
        p: two-sided p-value of the hypothesis that the two orders are independent.
        method: ``exact`` over all permutations (up to 8 points), else ``t``: Student's t with
            n - 2 degrees of freedom.
        within: the same among the groups of each label of each stage axis.
    """

    n: int
    rho: float | None
    p: float | None
    method: Method | None = None
    within: list[Within] = field(default_factory=list)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The correlation that ``dataclasses.asdict`` wrote."""
        # Results of earlier versions have shares of variance here, which may overlap.
        rows = {name: value for name, value in data.items() if name != "explained"}
        return cls(**{**rows, "within": [Within(**row) for row in data["within"]]})


def correlate(
    points: Sequence[tuple[Mapping[str, str], float, float]],
    *,
    within: Sequence[str],
) -> Correlation | None:
    """Correlate parameter counts with KIDs.

    Args:
        points: labels, parameter count and mean KID of each group.
        within: the axes for which to correlate within each label, too.

    Returns:
        None for fewer than three points.
    """
    if len(points) < 3:
        return None
    rho, p, method = spearman([x for _, x, _ in points], [y for *_, y in points])
    rows = []
    for axis in within:
        for label in dict.fromkeys(labels[axis] for labels, *_ in points):
            some = [(x, y) for labels, x, y in points if labels[axis] == label]
            inner = spearman([x for x, _ in some], [y for _, y in some])
            rows.append(
                Within(
                    axis=axis, label=label, n=len(some), rho=inner[0], p=inner[1], method=inner[2]
                )
            )
    return Correlation(n=len(points), rho=rho, p=p, method=method, within=rows)


def spearman(
    x: Sequence[float], y: Sequence[float]
) -> tuple[float | None, float | None, Method | None]:
    """Spearman's rank correlation with a two-sided p-value.

    Ties share the mean of their ranks (Spearman 1904). Up to :data:`EXACT` points, p is the share
    of all orders whose correlation is at least as far from 0. For more points, it comes from
    Student's t with n - 2 degrees of freedom.

    Returns:
        rho, p and the method; all None for fewer than three points, or if all of ``x`` or all of
        ``y`` are equal.
    """
    n = len(x)
    if n < 3 or len(set(x)) == 1 or len(set(y)) == 1:
        return None, None, None
    import numpy as np
    from scipy import stats

    result = stats.spearmanr(x, y)
    rho = round(float(result.statistic), 12)
    if n <= EXACT:
        a = stats.zscore(stats.rankdata(x)) / n

        def distance(order: Any, axis: int) -> Any:
            return np.abs(np.tensordot(order, a, (axis, 0)))

        ranks = stats.zscore(stats.rankdata(y))
        test = stats.permutation_test(
            (ranks,),
            distance,
            permutation_type="pairings",
            n_resamples=np.inf,
            alternative="greater",
            vectorized=True,
        )
        return rho, float(test.pvalue), "exact"
    if abs(rho) >= 1:
        return rho, 2 / math.factorial(n), "exact"  # only the two monotone orders
    return rho, float(result.pvalue), "t"
