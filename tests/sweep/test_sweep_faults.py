"""Faults of a sweep: one error lists all of them, each once."""

from __future__ import annotations

from pathlib import Path

import pytest
from errors_help import raises
from hypothesis import given, settings
from hypothesis import strategies as st
from sweep_cases import UPSAMPLERS, axis, base, sweep

from cascadezoo.errors import InputError, Problem, SpecError, UnknownNameError
from cascadezoo.sweep.cells import load_sweep


def problems(data) -> list[Problem]:
    with pytest.raises(SpecError) as caught:
        load_sweep(data)
    return list(caught.value.problems)


def faults(data) -> list[tuple[str, str]]:
    """The path and the code of each problem."""
    return [(problem.path, problem.code) for problem in problems(data)]


def test_all_faults_of_a_file_at_once():
    listed = problems(
        sweep(
            axis("up", "stages.upp", UPSAMPLERS),
            axis("hidden", "stages.up.config.hiden", [4, 8]),
            axis("lr", "training.optimizer.lr", []),
            axis("lr2", "training.optimizer.lr", [0.1, 0.1]),
            axis("coarse", "stages.coarse", {"Bad Label": {"kind": "flow.v1"}, "text": "flow.v1"}),
            axis("beta", "training.optimizer.betas", [[0.9, 0.99]]),
            axis("flow", "stages.0.config.channels", {"wide": 16, "bad": -3}),
            nonsense=1,
        )
    )
    assert {problem.path: problem.code for problem in listed} == {
        "axes.2": "value-error",
        "nonsense": "extra-forbidden",
        "axes.0.path": "unknown-path",
        "axes.1.path": "unknown-path",
        "axes.3.values.1": "label-taken",
        "axes.4.values.Bad Label": "label-form",
        "axes.4.values.text": "stage-form",
        "axes.5.values.0": "label-missing",
        "flow=bad: stages.0.config.channels": "greater-than-equal",
    }
    assert len(listed) == 9
    hints = {problem.path: str(problem.hint) for problem in listed}
    assert "stages.up?" in hints["axes.0.path"]
    assert "stages.up.config.hidden?" in hints["axes.1.path"]


def test_faults_of_the_base_and_of_the_axes_together():
    data = sweep(axis("seed", "seed", []))
    data["base"]["stages"][1]["config"]["hiden"] = 3
    data["base"]["training"]["batch_size"] = 0
    assert faults(data) == [
        ("axes.0", "value-error"),
        ("base.training.batch_size", "greater-than-equal"),
        ("base.stages.1.config.hiden", "extra-forbidden"),
    ]


def test_a_fault_of_an_alternative_is_reported_once():
    values = {**UPSAMPLERS, "wrong": {"kind": "pixelshuffle.v1", "config": {"hiden": 3}}}
    data = sweep(
        axis("up", "stages.up", values),
        axis("lr", "training.optimizer.lr", [0.1, 0.2]),
        axis("seed", "seed", [0, 1, -1]),
    )
    data["axes"][2]["values"] = {"a": 0, "b": -1}
    assert faults(data) == [
        ("seed=b: seed", "greater-than-equal"),
        ("up=wrong: stages.1.config.hiden", "extra-forbidden"),
    ]


def test_a_fault_of_a_combination_names_both():
    data = sweep(
        axis("size", "stages.coarse.config.size", {"small": 4, "big": 5}),
        axis("factor", "stages.up.config.factor", {"two": 2, "four": 4}),
        axis("seed", "seed", [0, 1]),
    )
    assert faults(data) == [
        ("size=small factor=four: stages.0.config.size", "size"),
        ("size=big factor=two: stages.0.config.size", "size"),
        ("size=big factor=four: stages.0.config.size", "size"),
    ]


def test_a_fault_of_every_cell():
    data = sweep(axis("seed", "seed", {"a": -1, "b": -1}))
    assert faults(data) == [("every cell: seed", "greater-than-equal")]


def test_two_cells_of_one_name_are_both_listed():
    data = sweep(
        axis("a", "data.flip", {"x-y": True, "x": False}),
        axis("b", "training.batch_size", {"z": 8, "y-z": 16}),
    )
    (problem,) = problems(data)
    assert (problem.path, problem.code) == ("axes", "cell-name-taken")
    for part in ("'x-y-z'", "(a=x-y, b=z)", "(a=x, b=y-z)"):
        assert part in problem.message


def test_excludes_that_match_nothing():
    listed = problems(
        sweep(
            exclude=[
                {"upsampler": "dae"},
                {"upsampeler": "interpolate"},
                {"seed": "s0", "upsampler": []},
                {},
            ]
        )
    )
    assert [(problem.path, problem.code) for problem in listed] == [
        ("exclude.0.upsampler", "unknown-label"),
        ("exclude.1.upsampeler", "unknown-axis"),
        ("exclude.3", "no-labels"),
        ("exclude.2", "excludes-nothing"),
    ]
    assert "pixelshuffle, interpolate" in str(listed[0].hint)
    assert "upsampler, seed" in str(listed[1].hint)
    assert faults(sweep(exclude=[{"seed": ["s0", "s1"]}])) == [("exclude", "excludes-all")]


def test_a_place_that_is_set_twice():
    values = {"a": {"stage": UPSAMPLERS["interpolate"], "settings": {"training.batch_size": 4}}}
    listed = problems(
        sweep(
            axis("up", "stages.up", values),
            axis("batch", "training.batch_size", [4, 8]),
            axis("up2", "stages.1", UPSAMPLERS),
        )
    )
    assert [(problem.path, problem.code) for problem in listed] == [
        ("axes.1.path", "set-twice"),
        ("axes.2.path", "set-twice"),
    ]
    assert "up=a" in listed[0].message
    assert "axis 'up'" in listed[1].message


def test_too_many_cells():
    rows = [
        axis(f"a{i}", f"training.{n}", list(range(1, 23)))
        for i, n in enumerate(("batch_size", "log_steps", "checkpoint_seconds"))
    ]
    (problem,) = problems(sweep(*rows))
    assert (problem.path, problem.code) == ("axes", "too-many-cells")
    assert "10,648" in problem.message


def test_two_axes_of_one_name_and_a_stage_that_would_be_renamed():
    listed = faults(
        sweep(
            axis("up", "stages.up", {"a": {"kind": "interpolate.v1", "name": "down"}}),
            axis("up", "seed", [0]),
        )
    )
    assert listed == [
        ("axes.1.name", "name-taken"),
        ("axes.0.values.a.name", "stage-renamed"),
    ]


def test_cells_are_not_published(tmp_path: Path):
    data = sweep(base=base(publish={"to": str(tmp_path)}))
    assert faults(data) == [("base.publish", "publishes")]


def test_a_missing_or_broken_base(tmp_path: Path):
    assert faults(sweep(base="nowhere.json")) == [("base", "lookup-spec")]
    with raises(UnknownNameError, "lookup-sweep", name="nix"):
        load_sweep("nix")
    (tmp_path / "bad.json").write_text('{"name": ')
    assert faults(sweep(base=str(tmp_path / "bad.json"))) == [("base", "not-json")]


def test_settings_with_an_unknown_path():
    data = sweep(settings={"stages.nix.kind": "flow"})
    assert faults(data) == [("settings", "input-setting-no-item")]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2)
    ),
    max_leaves=4,
)


@settings(max_examples=150, deadline=None)
@given(
    where=st.sampled_from(
        ["name", "base", "axes", "exclude", "settings", "match_parameters", "0", "path", "values"]
    ),
    what=JSON,
)
def test_no_json_crashes_the_reader(where, what):
    data = sweep(axis("up", "stages.up", dict(UPSAMPLERS)))
    if where in ("path", "values"):
        data["axes"][0][where] = what
    elif where == "0":
        data["axes"].append(what)
    else:
        data[where] = what
    try:
        made = load_sweep(data)
    except InputError:
        return
    assert made.cells
