"""Which axes decide, and which combinations are as good as the best. Does not import torch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "Best",
    "Effect",
    "Rival",
    "Variance",
    "analyze_variance",
    "compare_with_best",
    "paired_differences",
]

RESAMPLES = 400
COVERAGE = 0.9
"""Of the interval of a share."""
LEVEL = 0.05
"""A rival with a larger p-value is not distinguishable from the best."""
_LARGEST_RIVALS = 100
"""Tukey's distribution takes seconds for more groups."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """The effect of an axis, or the interaction of several.

    Args:
        axes: one axis for a main effect, several for their interaction.
        share: the share of the total sum of squares, from 0 to 1.
        low: lower end of the 90 % interval; None for fewer than three seeds.
        high: its upper end.
        p: p-value of the F-test that the effect is 0; None for a single seed.
    """

    axes: list[str]
    share: float
    low: float | None = None
    high: float | None = None
    p: float | None = None

    @property
    def name(self) -> str:
        """``generator``, or ``generator x upsampler``."""
        return " x ".join(self.axes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variance:
    """An analysis of variance of a balanced full grid.

    Args:
        effects: main effects and interactions of the axes that are no seeds.
        seeds: the share of the differences between seeds; None for a single seed.
        count: number of seeds of each combination.
        refused: why there is no analysis: the grid is not full, or not balanced. Shares of such a
            grid overlap, and an axis gets what another one causes.
    """

    effects: list[Effect] = field(default_factory=list)
    seeds: float | None = None
    count: int = 0
    refused: str = ""

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what ``dataclasses.asdict`` wrote."""
        return cls(**{**data, "effects": [Effect(**row) for row in data["effects"]]})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """A combination beside another one.

    Args:
        name: its name.
        difference: its mean minus the other one's; at least 0 beside the best one.
        low: lower end of the 95 % interval of the difference; simultaneous beside the best one.
        high: its upper end.
        p: p-value; corrected for the comparison of all pairs beside the best one.
    """

    name: str
    difference: float
    low: float
    high: float
    p: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The combination with the lowest mean, and the others beside it.

    Args:
        name: the best combination.
        mean: its mean.
        rivals: the others, from the nearest on.
    """

    name: str
    mean: float
    rivals: list[Rival]

    @property
    def tied(self) -> list[Rival]:
        """The rivals that are not distinguishable from the best."""
        return [rival for rival in self.rivals if rival.p > LEVEL]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what ``dataclasses.asdict`` wrote."""
        return cls(**{**data, "rivals": [Rival(**row) for row in data["rivals"]]})


def analyze_variance(
    cells: Sequence[tuple[Mapping[str, str], float]],
    *,
    axes: Sequence[str],
    seed_axes: Sequence[str],
) -> Variance | None:
    """Divide the variance of a full factorial grid among its axes and their interactions.

    The classical analysis of variance with fixed effects (Fisher 1925): an effect is what its axes
    add to the effects of fewer of them, seeds are replicates, and F compares an effect's mean
    square with that of the seeds. The interval of a share resamples the seeds of each combination.

    Args:
        cells: labels and value of each cell.
        axes: all axes.
        seed_axes: those of them that are seeds.

    Returns:
        None if no axis has two labels, or all values are equal.
    """
    import numpy as np

    labels = {
        axis: list(dict.fromkeys(row[axis] for row, _ in cells))
        for axis in axes
        if axis not in seed_axes
    }
    labels = {axis: names for axis, names in labels.items() if len(names) > 1}
    if not labels or len({value for _, value in cells}) < 2:
        return None
    values: dict[tuple[str, ...], list[float]] = {
        key: [] for key in itertools.product(*labels.values())
    }
    for row, value in cells:
        values[tuple(row[axis] for axis in labels)].append(value)
    count = max(len(rows) for rows in values.values())
    for key, rows in values.items():
        if len(rows) != count:
            return Variance(
                refused=f"{'-'.join(key)} has {len(rows)} measured cells, others have {count}"
            )
    grid = np.array(list(values.values())).reshape(*(len(n) for n in labels.values()), count)
    sums = _sums_of_squares(grid)
    total = float(((grid - grid.mean()) ** 2).sum())
    within = float(((grid - grid.mean(-1, keepdims=True)) ** 2).sum())
    freedom = grid[..., 0].size * (count - 1)
    shares = _resampled(grid) if count > 2 else {}
    names = list(labels)
    effects = []
    for places, (square, degrees) in sums.items():
        low, high = shares.get(places, (None, None))
        effects.append(
            Effect(
                axes=[names[place] for place in places],
                share=square / total,
                low=low,
                high=high,
                p=_f_test(square / degrees, degrees, within, freedom),
            )
        )
    return Variance(effects=effects, seeds=within / total if count > 1 else None, count=count)


def _sums_of_squares(grid: np.ndarray) -> dict[tuple[int, ...], tuple[float, int]]:
    """Sum of squares and degrees of freedom of each effect of a grid; the last axis are seeds."""
    factors = range(grid.ndim - 1)
    effects: dict[tuple[int, ...], np.ndarray] = {(): grid.mean(keepdims=True)}
    result: dict[tuple[int, ...], tuple[float, int]] = {}
    for size in range(1, grid.ndim):
        for places in itertools.combinations(factors, size):
            others = (*(f for f in factors if f not in places), grid.ndim - 1)
            effect = grid.mean(axis=others, keepdims=True)
            for fewer in range(size):
                for inner in itertools.combinations(places, fewer):
                    effect = effect - effects[inner]
            effects[places] = effect
            repeats = grid.size // effect.size
            degrees = math.prod(grid.shape[place] - 1 for place in places)
            result[places] = float((effect**2).sum()) * repeats, degrees
    return result


def _resampled(grid: np.ndarray) -> dict[tuple[int, ...], tuple[float, float]]:
    """The interval of each effect's share, over grids whose seeds are drawn with replacement."""
    import numpy as np

    random = np.random.default_rng(0)
    rows: dict[tuple[int, ...], list[float]] = {}
    for _ in range(RESAMPLES):
        drawn = np.take_along_axis(grid, random.integers(0, grid.shape[-1], grid.shape), axis=-1)
        total = float(((drawn - drawn.mean()) ** 2).sum())
        if total > 0:
            for places, (square, _degrees) in _sums_of_squares(drawn).items():
                rows.setdefault(places, []).append(square / total)
    ends = [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2]
    return {
        places: (float(low), float(high))
        for places, shares in rows.items()
        for low, high in [np.quantile(shares, ends)]
    }


def _f_test(mean_square: float, degrees: int, within: float, freedom: int) -> float | None:
    if freedom < 1:
        return None
    if within <= 0:
        return 0.0 if mean_square > 0 else 1.0
    from scipy import stats

    return float(stats.f.sf(mean_square / (within / freedom), degrees, freedom))


def compare_with_best(groups: Mapping[str, Sequence[float]]) -> Best | None:
    """Compare each group with the one that has the lowest mean.

    The best of several looks better than it is. Tukey's range test (Tukey 1949, Kramer 1956) holds
    for all pairs at once, therefore also for those with the best, whichever that is.

    Args:
        groups: the values of each combination, one for each seed; groups of one value are left out.

    Returns:
        None for fewer than two or more than a hundred groups of two values.
    """
    rows = {name: list(values) for name, values in groups.items() if len(values) > 1}
    if not 2 <= len(rows) <= _LARGEST_RIVALS:
        return None
    means = {name: math.fsum(values) / len(values) for name, values in rows.items()}
    best = min(means, key=means.__getitem__)
    names = list(rows)
    if all(len(set(values)) == 1 for values in rows.values()):
        return None  # without any spread there is nothing to compare by
    from scipy import stats

    result = stats.tukey_hsd(*rows.values())
    interval = result.confidence_interval(confidence_level=1 - LEVEL)
    at = names.index(best)
    rivals = [
        Rival(
            name=name,
            difference=means[name] - means[best],
            low=float(interval.low[place, at]),
            high=float(interval.high[place, at]),
            p=float(result.pvalue[place, at]),
        )
        for place, name in enumerate(names)
        if name != best
    ]
    return Best(name=best, mean=means[best], rivals=sorted(rivals, key=lambda r: r.difference))


def paired_differences(groups: Mapping[str, Mapping[str, float]], reference: str) -> list[Rival]:
    """Compare each group with a reference that was chosen beforehand, seed by seed.

    Student's paired t-test: what a seed does to both groups cancels. Each interval holds for its
    own pair only; with k groups, one of k - 1 intervals misses more often than each of them. Use
    :func:`compare_with_best` if the reference is chosen by its result.

    Args:
        groups: the value of each seed, by group.
        reference: the group to compare with.

    Returns:
        A row for each other group that shares at least two seeds with the reference, in their
        order. A ``difference`` below 0 means a lower mean than the reference's. Without any spread
        of the differences the interval is a point, and p is 0, or 1 for equal values.

    Raises:
        KeyError: no group has the reference's name.
    """
    from scipy import stats

    base = groups[reference]
    rows = []
    for name, values in groups.items():
        changes = [values[seed] - base[seed] for seed in base if seed in values]
        count = len(changes)
        if name == reference or count < 2:
            continue
        mean = math.fsum(changes) / count
        spread = math.sqrt(math.fsum((d - mean) ** 2 for d in changes) / (count - 1) / count)
        reach = float(stats.t.ppf(1 - LEVEL / 2, count - 1)) * spread
        p = float(mean == 0)
        if spread > 0:
            p = 2 * float(stats.t.sf(abs(mean) / spread, count - 1))
        rows.append(Rival(name=name, difference=mean, low=mean - reach, high=mean + reach, p=p))
    return rows
