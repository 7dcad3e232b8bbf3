from __future__ import annotations

import copy
from typing import Any

import pytest
from errors_help import raises
from hypothesis import given
from hypothesis import strategies as st
from tune_cases import CDM, untrained

from cascadezoo import Cascade
from cascadezoo.errors import InputError
from cascadezoo.spec.configs import Option
from cascadezoo.tune.grid import PARAMETERS, make_grid, request_of, show


def test_default_values_come_from_the_configs(cdm: Cascade) -> None:
    grid = make_grid(cdm, ["s", "steps", "guidance", "truncated"])
    values = {p.name: p.values for p in grid.parameters}
    assert values == {
        "s": (0.0, 0.125, 0.25, 0.375, 0.5),
        "steps": (1, 2, 4),
        "guidance": (1.0, 1.5, 2.0, 3.0),
        "truncated": (False, True),
    }
    assert len(grid.settings) == 5 * 3 * 4 * 2
    assert {p.name: p.stages for p in grid.parameters}["s"] == ("sr",)
    assert {p.name: p.stages for p in grid.parameters}["steps"] == ("coarse", "sr")
    assert make_grid(cdm, ["sr.steps"]).parameters[0].values == (1, 2)
    assert "ddim" in make_grid(cdm, ["sampler"]).parameters[0].values
    schedules = make_grid(cdm, ["sr.sampling_schedule"]).parameters[0]
    assert schedules.values == ("trained", "linear", "cosine", "karras", "log-snr")
    assert make_grid(cdm, ["restart"]).parameters[0].values == (0.0, 0.5, 0.75)
    assert make_grid(cdm, ["eta"]).parameters[0].values == (0.0, 0.5, 1.0)


def test_settings_of_the_first_stages_are_outermost(cdm: Cascade) -> None:
    values = {"s": ["0", "0.5"], "coarse.steps": ["2", "4"]}
    grid = make_grid(cdm, ["s", "coarse.steps"], values)
    assert [tuple(row.values()) for row in grid.settings] == [
        (2, 0.0),
        (2, 0.5),
        (4, 0.0),
        (4, 0.5),
    ]
    assert grid.options(grid.settings[1]) == {"coarse": {"steps": 2}, "sr": {"s": 0.5}}
    assert request_of(grid.options(grid.settings[1])) == {
        "steps": {"coarse": 2},
        "options": {"s": {"sr": 0.5}},
    }


REFUSED = {
    "nothing": ([], {}, {"code": "input-tune-nothing"}, "--over"),
    "unknown": (["magic"], {}, {"code": "input-tune-unknown", "name": "magic"}, "guidance"),
    "unknown stage": (
        ["up.s"],
        {},
        {"code": "input-tune-stage-unknown", "name": "up"},
        "coarse, sr",
    ),
    "unsupported by that stage": (
        ["coarse.s"],
        {},
        {"code": "input-tune-stage-unheeded", "name": "coarse", "option": "s"},
        "sr.s",
    ),
    "twice": (
        ["s", "sr.s"],
        {},
        {"code": "input-tune-same", "names": ("s", "sr.s")},
        None,
    ),
    "not searched": (
        ["s"],
        {"eta": ["0"]},
        {"code": "input-tune-values-unsearched", "name": "eta"},
        "s,eta",
    ),
    "no number": (
        ["s"],
        {"s": ["x"]},
        {"code": "input-tune-value", "name": "s", "value": "x"},
        "s=A,B",
    ),
    "empty": (["s"], {"s": [""]}, {"code": "input-tune-value", "value": ""}, "s=A,B"),
    "nan": (
        ["guidance"],
        {"guidance": ["nan"]},
        {"code": "input-tune-value", "value": "nan"},
        "A,B",
    ),
    "negative": (
        ["guidance"],
        {"guidance": ["-1"]},
        {"code": "input-tune-value", "value": "-1"},
        "A,B",
    ),
    "half a step": (
        ["steps"],
        {"steps": ["1.5"]},
        {"code": "input-tune-value", "value": "1.5"},
        "A,B",
    ),
    "no steps": (["steps"], {"steps": ["0"]}, {"code": "input-tune-value", "value": "0"}, "A,B"),
    "no switch": (
        ["truncated"],
        {"truncated": ["maybe"]},
        {"code": "input-tune-value", "value": "maybe"},
        "A,B",
    ),
    "too many": (
        ["s"],
        {"s": [f"0.{i:05}" for i in range(10_001)]},
        {"code": "input-tune-too-many", "count": 10001},
        "--values",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_grids_that_are_refused(case: str, cdm: Cascade) -> None:
    over, values, error, hint = REFUSED[case]
    with raises(InputError, **error) as caught:
        make_grid(cdm, over, values)
    assert hint is None or hint in str(caught.value.hint)


def test_a_stage_that_is_not_run_cannot_be_searched(cdm: Cascade) -> None:
    with raises(InputError, "input-tune-stage-not-run", name="coarse") as caught:
        make_grid(cdm, ["coarse.steps"], skip=["coarse"])
    assert "--upstream real" in str(caught.value.hint)
    assert make_grid(cdm, ["steps"], skip=["coarse"]).parameters[0].stages == ("sr",)


def test_no_stage_supports_it_and_no_labels() -> None:
    spec = copy.deepcopy(CDM)
    spec["stages"] = [
        {"name": "g", "kind": "flow.v1", "config": {"channels": 8, "multipliers": [1]}}
    ]
    spec["training"]["phases"] = [{"name": "p", "train": ["g"], "steps": 1}]
    flow = untrained(spec)
    with raises(InputError, "input-tune-unheeded", option="s") as caught:
        make_grid(flow, ["s"])
    assert "steps, guidance, sampler" in str(caught.value.hint)
    spec["data"]["num_classes"] = 0
    with raises(InputError, "input-tune-needs-labels"):
        make_grid(untrained(spec), ["guidance"])


def test_no_level_to_choose_without_gaussian_augmentation() -> None:
    spec = copy.deepcopy(CDM)
    spec["stages"][1]["config"]["augmentation"] = "blur"
    with raises(InputError, "input-tune-no-level"):
        make_grid(untrained(spec), ["s"])


@given(st.sampled_from(["s", "steps", "guidance", "truncated"]), st.data())
def test_a_shown_value_can_be_read(name: str, data: st.DataObject) -> None:
    value = data.draw(
        {
            "steps": st.integers(1, 10**6),
            "truncated": st.booleans(),
        }.get(name, st.integers(0, 1000).map(lambda i: i / 100))
    )
    from cascadezoo.tune.grid import _read

    assert name in PARAMETERS
    assert _read(name, name, show(value)) == value


def test_a_value_has_the_limits_of_its_own_stage(cdm: Cascade) -> None:
    cascade = copy.deepcopy(cdm)
    for name, most in (("coarse", 1.0), ("sr", 10.0)):
        stage = cascade.stage(name)
        declared = {"level": Option(float, 0.0, most)}
        config: Any = type("Levelled", (type(stage.config),), {"sampling_options": declared})
        stage.config = config.model_validate(stage.config.model_dump())
        stage.sampling_options = stage.sampling_options | {"level"}  # type: ignore[misc]
    assert make_grid(cascade, ["sr.level"], {"sr.level": ["5"]}).parameters[0].values == (5.0,)
    with raises(InputError, "input-tune-value"):
        make_grid(cascade, ["coarse.level"], {"coarse.level": ["5"]})
