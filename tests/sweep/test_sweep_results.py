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

from cascadezoo.sweep.correlation import EXACT, correlate, spearman
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


# --- within the labels of an axis


def test_the_correlation_within_each_label():
    points = [
        ({"generator": generator, "up": up}, 10 + (up == "v"), float(place))
        for place, (generator, up) in enumerate(itertools.product("gh", "uv"))
    ]
    correlation = correlate(points, within=["generator", "up"])
    assert correlation is not None
    assert [(w.axis, w.label, w.n) for w in correlation.within] == [
        ("generator", "g", 2),
        ("generator", "h", 2),
        ("up", "u", 2),
        ("up", "v", 2),
    ]


def test_results_of_an_earlier_version_are_read():
    data = json.loads(json.dumps(results(THREE).to_dict()))
    data["correlation"]["explained"] = {"generator": 0.5}
    del data["variance"], data["best"]
    read = SweepResults.from_dict(data)
    assert (read.variance, read.best) == (None, None)
    assert read.correlation == results(THREE).correlation
