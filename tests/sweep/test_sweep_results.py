"""Groups of cells and statistics of their results."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cascadezoo.sweep.correlation import EXACT, correlate, eta_squared, spearman
from cascadezoo.sweep.results import CellResult, StageResult, SweepResults, mean_and_std, summarize


def cell(generator: str, seed: int, parameters: int, kid: float | None, **rest) -> CellResult:
    fields = {
        "state": "done" if kid is not None else "failed",
        "kid_name": None if kid is None else "kid.small.n64",
        "stages": [StageResult(name="coarse", kind=f"{generator}.v1", parameters=parameters)],
        **rest,
    }
    return CellResult(
        name=f"{generator}-s{seed}",
        labels={"generator": generator, "seed": f"s{seed}"},
        run=f"cells/{generator}-s{seed}",
        parameters=parameters if kid is not None else None,
        kid=kid,
        **fields,
    )


def results(cells: list[CellResult]) -> SweepResults:
    return summarize(
        cells,
        name="mini",
        description="",
        axes=["generator", "seed"],
        seed_axes=["seed"],
        stage_axes=["generator"],
        settings={"batch": 16},
        machine={"cores": 2},
        started="2026-01-01T00:00:00+00:00",
    )


THREE = [
    cell("dae", 0, 100, 0.5, lpips=0.2),
    cell("dae", 1, 100, 0.3),
    cell("flow", 0, 200, 0.2),
    cell("flow", 1, 200, None, error="killed"),
    cell("resnet", 0, 300, 0.1),
    cell("resnet", 1, 300, 0.14),
]


def test_groups_leave_the_seeds_out():
    summary = results(THREE)
    assert [g.name for g in summary.groups] == ["dae", "flow", "resnet"]
    dae, flow, _ = summary.groups
    assert (dae.labels, dae.cells, dae.count) == ({"generator": "dae"}, ["dae-s0", "dae-s1"], 2)
    assert dae.mean("kid") == pytest.approx(0.4)
    assert dae.std("kid") == pytest.approx(np.std([0.5, 0.3], ddof=1))
    assert dae.spreads["lpips"].count == 1
    assert (flow.count, flow.mean("kid"), flow.std("kid"), flow.mean("lpips")) == (
        1,
        0.2,
        None,
        None,
    )
    assert [c.name for c in summary.failed] == ["flow-s1"]


def test_seeds_count_as_one_point_of_the_correlation():
    correlation = results(THREE).correlation
    assert correlation is not None
    assert (correlation.n, correlation.rho) == (3, -1.0)
    # Of the six orders of three points, one is as far from 0, and one as far on the other side.
    assert correlation.p == pytest.approx(2 / 6)
    assert [(w.label, w.n, w.rho) for w in correlation.within] == [
        ("dae", 1, None),
        ("flow", 1, None),
        ("resnet", 1, None),
    ]


def test_figures_of_different_names_are_not_compared():
    other = dataclasses.replace(THREE[4], kid_name="kid.inception.n64")
    summary = results([*THREE[:4], other, THREE[5]])
    assert summary.correlation is None
    assert "kid.inception.n64, kid.small.n64" in summary.notes[0]


def test_unfinished_cells_are_noted():
    summary = results([*THREE[:5], dataclasses.replace(THREE[5], state="waiting", kid=None)])
    (note,) = summary.notes
    assert "1 of 6 cells" in note


def test_results_survive_json():
    summary = results(THREE)
    text = json.dumps(summary.to_dict(), allow_nan=False)
    assert SweepResults.from_dict(json.loads(text)) == summary


def test_too_few_points_for_a_correlation():
    assert results(THREE[:4]).correlation is None


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20))
def test_mean_and_std_are_those_of_numpy(values):
    row = mean_and_std(values)
    assert row is not None
    assert row.mean == pytest.approx(np.mean(values), rel=1e-9, abs=1e-9)
    if len(values) > 1:
        assert row.std == pytest.approx(np.std(values, ddof=1), rel=1e-6, abs=1e-6)
    else:
        assert row.std is None


# --- Spearman


@settings(deadline=None, max_examples=60)
@given(
    st.integers(3, 30).flatmap(
        lambda n: st.tuples(*(st.lists(st.integers(0, 9), min_size=n, max_size=n) for _ in "xy"))
    )
)
def test_rho_is_that_of_scipy(pair):
    x, y = pair
    rho, p, method = spearman(x, y)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert (rho, p, method) == (None, None, None)
        return
    expected = stats.spearmanr(x, y)
    assert rho == pytest.approx(expected.statistic, abs=1e-9)
    if method == "t":
        assert p == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("n", range(3, EXACT))
def test_small_p_values_are_those_of_all_permutations(n):
    rng = random.Random(n)
    x = list(range(n))
    y = [rng.randrange(4) for _ in range(n)]
    y[0], y[1] = 0, 3
    rho, p, method = spearman(x, y)
    far = [
        abs(stats.spearmanr(x, order).statistic) >= abs(rho) - 1e-9
        for order in itertools.permutations(y)
    ]
    assert method == "exact"
    assert p == pytest.approx(np.mean(far))


def test_p_of_a_monotone_row():
    assert spearman(range(12), range(12)) == (1.0, 2 / math.factorial(12), "exact")
    assert spearman([1, 2, 3, 4], [4, 3, 2, 1]) == (-1.0, pytest.approx(2 / 24), "exact")


def test_p_values_of_independent_orders_are_uniform():
    rng = np.random.default_rng(0)
    values = [
        spearman(list(range(6)), list(rng.permutation(6).astype(float)))[1] for _ in range(400)
    ]
    assert np.mean([p <= 0.05 for p in values]) < 0.08
    assert 0.4 < np.mean(values) < 0.65


# --- eta squared


def naive_eta(labels, values) -> float:
    total = sum((v - np.mean(values)) ** 2 for v in values)
    within = 0.0
    for label in set(labels):
        rows = [v for name, v in zip(labels, values, strict=True) if name == label]
        within += sum((v - np.mean(rows)) ** 2 for v in rows)
    return 1 - within / total


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(-50, 50)), min_size=2, max_size=20))
def test_eta_squared_is_the_naive_formula(rows):
    labels, values = zip(*rows, strict=True)
    share = eta_squared(labels, values)
    if len(set(labels)) < 2 or len(set(values)) < 2:
        assert share is None
    else:
        assert share == pytest.approx(naive_eta(labels, values), abs=1e-9)
        assert 0 <= share <= 1


def test_shares_of_variance_show_the_axis_that_matters():
    points, cells = [], []
    for generator, up, seed in itertools.product("gh", "uv", (0, 1)):
        labels = {"generator": generator, "up": up, "seed": f"s{seed}"}
        kid = (generator == "h") * 1.0 + (up == "v") * 0.1 + seed * 0.001
        cells.append((labels, kid))
        if seed == 0:
            points.append((labels, 10 + (up == "v"), kid))
    correlation = correlate(
        points, cells, axes=["generator", "up", "seed"], within=["generator", "up"]
    )
    assert correlation is not None
    assert correlation.explained["generator"] == pytest.approx(1 / (1 + 0.01 + 1e-6))
    assert correlation.explained["up"] == pytest.approx(0.01 / (1 + 0.01 + 1e-6))
    assert sum(correlation.explained.values()) == pytest.approx(1)
    assert [(w.axis, w.label, w.n) for w in correlation.within] == [
        ("generator", "g", 2),
        ("generator", "h", 2),
        ("up", "u", 2),
        ("up", "v", 2),
    ]
