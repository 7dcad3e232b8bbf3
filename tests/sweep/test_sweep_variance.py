"""Shares of variance on balanced grids, and the comparison with the best combination."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cascadezoo.sweep.variance import (
    LEVEL,
    analyze_variance,
    compare_with_best,
    paired_differences,
)

AXES = ["generator", "up", "refiner"]


def make_cells(grid: np.ndarray) -> list[tuple[dict[str, str], float]]:
    """Cells of an array, whose last axis are the seeds."""
    rows = []
    for place in np.ndindex(grid.shape):
        labels = {axis: f"{axis}{n}" for axis, n in zip(AXES, place, strict=False)}
        rows.append(({**labels, "seed": f"s{place[-1]}"}, float(grid[place])))
    return rows


def analyze(grid: np.ndarray):
    axes = [*AXES[: grid.ndim - 1], "seed"]
    cells = make_cells(grid)
    for labels, _ in cells:
        labels.update({"seed": labels["seed"]})
    return analyze_variance(cells, axes=axes, seed_axes=["seed"])


def squares_by_regression(grid: np.ndarray) -> dict[tuple[str, ...], float]:
    """Sums of squares as what a term adds to a linear model, by least squares over dummies."""
    places = list(np.ndindex(grid.shape))
    values = np.array([grid[place] for place in places])
    factors = range(grid.ndim - 1)

    def dummies(some: tuple[int, ...]) -> np.ndarray:
        keys = sorted({tuple(place[f] for f in some) for place in places})
        return np.array([[tuple(p[f] for f in some) == key for key in keys] for p in places], float)

    def left(terms: list[tuple[int, ...]]) -> float:
        design = np.hstack([np.ones((len(values), 1)), *(dummies(term) for term in terms)])
        fitted = design @ np.linalg.lstsq(design, values, rcond=None)[0]
        return float(((values - fitted) ** 2).sum())

    total = left([])
    terms = [c for size in range(1, grid.ndim) for c in itertools.combinations(factors, size)]
    result, before = {}, total
    for place, term in enumerate(terms):
        after = left(terms[: place + 1])
        result[tuple(AXES[f] for f in term)] = (before - after) / total
        before = after
    return result


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.integers(2, 3), min_size=1, max_size=3), st.integers(1, 3), st.integers(0, 10**6)
)
def test_shares_are_those_of_a_linear_model(shape, seeds, seed):
    grid = np.random.default_rng(seed).normal(size=(*shape, seeds))
    result = analyze(grid)
    assert result is not None
    assert not result.refused
    shares = {tuple(effect.axes): effect.share for effect in result.effects}
    assert shares == pytest.approx(squares_by_regression(grid), abs=1e-9)
    assert sum(shares.values()) + (result.seeds or 0) == pytest.approx(1)
    assert (result.seeds is None) == (seeds == 1)
    assert all((effect.p is None) == (seeds == 1) for effect in result.effects)


def test_p_of_one_axis_is_that_of_scipy():
    grid = np.random.default_rng(1).normal(size=(4, 5)) + np.arange(4)[:, None] * 0.5
    (effect,) = analyze(grid).effects
    assert effect.p == pytest.approx(stats.f_oneway(*grid).pvalue)


def test_p_values_are_uniform_without_an_effect():
    rng = np.random.default_rng(2)
    rows = [analyze(rng.normal(size=(2, 3, 2))).effects for _ in range(400)]
    for place in range(3):
        p = [effects[place].p for effects in rows]
        assert 0.02 < np.mean([value < 0.05 for value in p]) < 0.09


def test_an_interval_covers_the_share_of_a_large_effect():
    rng = np.random.default_rng(3)
    grid = rng.normal(size=(3, 2, 4)) + np.array([0.0, 5.0, 10.0])[:, None, None]
    first, *others = analyze(grid).effects
    assert first.axes == ["generator"]
    assert first.low < first.share < first.high <= 1
    assert first.low > 0.8
    assert all(effect.share < 0.1 for effect in others)


@pytest.mark.parametrize("drop", [0, 3, 7])
def test_an_unbalanced_grid_is_refused(drop):
    cells = make_cells(np.random.default_rng(4).normal(size=(2, 2, 2)))
    del cells[drop]
    result = analyze_variance(cells, axes=["generator", "up", "seed"], seed_axes=["seed"])
    assert result is not None
    assert not result.effects
    assert "1 measured cells" in result.refused


def test_a_missing_combination_is_refused():
    cells = make_cells(np.random.default_rng(5).normal(size=(2, 3, 2)))
    cells = [c for c in cells if (c[0]["generator"], c[0]["up"]) != ("generator1", "up2")]
    result = analyze_variance(cells, axes=["generator", "up", "seed"], seed_axes=["seed"])
    assert "generator1-up2 has 0" in result.refused


def test_equal_values_and_single_labels_have_no_shares():
    assert analyze(np.zeros((2, 2))) is None
    assert analyze(np.random.default_rng(6).normal(size=(1, 3))) is None


# --- the best


def test_rivals_are_those_of_tukey():
    rng = np.random.default_rng(7)
    groups = {
        name: list(rng.normal(mean, 1, 4))
        for name, mean in zip("abcd", (3, 0, 0.5, 9), strict=True)
    }
    best = compare_with_best(groups)
    assert best is not None
    means = {name: np.mean(values) for name, values in groups.items()}
    assert best.name == min(means, key=means.__getitem__)
    result = stats.tukey_hsd(*groups.values())
    for rival in best.rivals:
        place, at = list(groups).index(rival.name), list(groups).index(best.name)
        assert rival.difference == pytest.approx(result.statistic[place, at])
        assert rival.p == pytest.approx(result.pvalue[place, at])
        assert rival.low <= rival.difference <= rival.high
    assert [r.name for r in best.rivals][-1] == "d"
    assert "d" not in [r.name for r in best.tied]


def test_the_best_of_equals_is_rarely_declared_better():
    """Without the correction, the best of eight equals differs from some other in most sweeps."""
    rng = np.random.default_rng(8)
    wrong = corrected = 0
    for _ in range(60):
        groups = {str(n): list(rng.normal(size=3)) for n in range(8)}
        best = compare_with_best(groups)
        corrected += len(best.tied) < 7
        wrong += any(
            stats.ttest_ind(groups[best.name], groups[rival.name]).pvalue < LEVEL
            for rival in best.rivals
        )
    assert corrected / 60 < 0.1
    assert wrong / 60 > 0.25


def test_nothing_to_compare():
    assert compare_with_best({"a": [1.0], "b": [2.0]}) is None
    assert compare_with_best({"a": [1.0, 2.0]}) is None
    assert compare_with_best({"a": [1.0, 1.0], "b": [2.0, 2.0]}) is None


def test_paired_differences_are_those_of_a_paired_t_test() -> None:
    one, other = [3.0, 5.0, 10.0], [2.5, 4.0, 9.5]
    seeds = ("s0", "s1", "s2")
    groups = {
        "one": dict(zip(seeds, one, strict=True)),
        "other": dict(zip(seeds, other, strict=True)),
        "alone": {"s1": 7.0},
    }
    (row,) = paired_differences(groups, "one")
    expected = stats.ttest_rel(other, one)
    interval = expected.confidence_interval(0.95)
    assert row.name == "other"
    assert row.difference == pytest.approx(-2 / 3)
    assert (row.low, row.high) == pytest.approx((interval.low, interval.high))
    assert row.p == pytest.approx(expected.pvalue)
    with pytest.raises(KeyError):
        paired_differences(groups, "nobody")


def test_paired_differences_without_a_spread() -> None:
    groups = {"one": {"s0": 1.0, "s1": 2.0}, "same": {"s0": 1.0, "s1": 2.0}}
    groups["more"] = {"s0": 2.0, "s1": 3.0}
    same, more = paired_differences(groups, "one")
    assert (same.difference, same.low, same.high, same.p) == (0, 0, 0, 1)
    assert (more.difference, more.low, more.high, more.p) == (1, 1, 1, 0)
