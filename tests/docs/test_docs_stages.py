"""The page of the study's stages against what the stages are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cascadezoo.build.plan import make_plan
from cascadezoo.cascade.stage_costs import StagePlan
from cascadezoo.plugins.builtin import register_stages
from cascadezoo.spec import load_spec, shipped_specs

PAGE = (Path(__file__).parents[2] / "docs" / "stages.md").read_text()
ROW = re.compile(
    r"^\| `([a-z-]+\.v\d+)` \| (\w+) \| (.+) \| ([\d,]+) \| ([\d.]+)( [GM])? \|$", re.M
)
UNITS = {"": 1.0, " M": 1e6, " G": 1e9}


def plan_of(kind: str, role: str) -> StagePlan:
    """The stage's plan at its defaults, where the study has such a stage on CIFAR-10."""
    size = 16 if role == "generator" else 32
    before = [] if role == "generator" else [{"name": "before", "kind": "flow.v1"}]
    data = {
        "name": "page",
        "data": {"source": "cifar10", "size": size},
        "stages": [*before, {"name": "it", "kind": kind}],
        "training": {"losses": []},
    }
    return make_plan(load_spec(data), "cpu").stages[-1]


def test_numbers_of_the_table_are_those_of_the_plan() -> None:
    rows = ROW.findall(PAGE)
    kinds = {e.name: e.role for e in register_stages() if e.role != "decoder"}
    assert {row[0]: row[1] for row in rows} == kinds
    for kind, role, _, parameters, flops, unit in rows:
        plan = plan_of(kind, role)
        assert f"{plan.parameters:,}" == parameters, kind
        wanted = float(flops) * UNITS[unit]
        assert plan.flops_sample is not None
        assert abs(plan.flops_sample - wanted) <= 0.005 * wanted, kind


def test_every_kind_has_its_paragraph() -> None:
    for kind in ("dae.v1", "resnet.v1", "mean-flow.v1", "resnet-upsampler.v1", "transposed.v1"):
        assert f"**`{kind}`**" in PAGE
    for kind in ("interpolate.v1", "conv-refiner.v1", "resnet-refiner.v1", "identity.v1", "vit.v1"):
        assert f"**`{kind}`**" in PAGE


@pytest.mark.slow
def test_the_table_of_shipped_specs_is_whole_and_right() -> None:
    page = (Path(__file__).parents[2] / "docs" / "spec.md").read_text()
    rows = dict(re.findall(r"^\| `([\w-]+)` \| [^|]+ \| ([\d.,]+) M \| .+ \|$", page, re.M))
    assert sorted(rows) == sorted(shipped_specs())
    for name, millions in rows.items():
        parameters = sum(row.parameters for row in make_plan(load_spec(name), "cpu").stages)
        digits = 2 if "." in millions else 0
        assert f"{parameters / 1e6:,.{digits}f}" == millions, name
