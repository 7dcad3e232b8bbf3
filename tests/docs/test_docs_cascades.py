"""The page "Does a cascade pay?" and the sweep that it reports."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cascadezoo.build.plan import Plan
from cascadezoo.sweep.cell_plans import plan_cells
from cascadezoo.sweep.cells import Sweep, load_sweep
from cascadezoo.util.numbers import human_count

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "does-a-cascade-pay.md").read_text()


@pytest.fixture(scope="module")
def sweep() -> Sweep:
    return load_sweep("cifar10-cascades")


@pytest.fixture(scope="module")
def plans(sweep: Sweep) -> dict[str, Plan]:
    """The plans by contender; seeds do not change them."""
    cells = sweep.choose(["seed=s0"])
    plans = plan_cells(cells, device="cpu", memory=False)
    return {cell.labels["cascade"]: plans[cell.name] for cell in cells}


def test_the_contenders_have_equal_flops_and_similar_parameters(plans: dict[str, Plan]) -> None:
    assert next(iter(plans)) == "single"
    flops = [plan.total_flops for plan in plans.values()]
    assert None not in flops
    assert max(flops) / min(flops) < 1.02
    counts = [plan.parameters for plan in plans.values()]
    assert max(counts) / min(counts) < 1.2


def test_the_contenders_differ_in_stages_and_phases_only(sweep: Sweep) -> None:
    first = sweep.cells[0].spec
    for cell in sweep.cells:
        spec = cell.spec
        assert (spec["data"], spec["evaluation"]) == (first["data"], first["evaluation"])
        assert [p["train"] for p in spec["training"]["phases"]] == [
            [stage["name"]] for stage in spec["stages"]
        ]
        assert {stage["config"].get("guidance", 1.0) for stage in spec["stages"]} == {1.0}
    assert [cell.labels["seed"] for cell in sweep.cells] == ["s0"] * 5 + ["s1"] * 5 + ["s2"] * 5


def test_the_table_of_the_page_has_the_costs_of_the_plan(plans: dict[str, Plan]) -> None:
    for name, plan in plans.items():
        row = re.search(
            rf"^\| `{name}` \| ([\d,]+) \| \S+ T \| ([\d.]+ [MG]) \|", PAGE, re.MULTILINE
        )
        assert row is not None, name
        assert row[1] == f"{plan.parameters:,}"
        assert row[2] == human_count(plan.sampling_flops)
