"""What is wrong with a sweep: every fault at once, each once."""

from __future__ import annotations

from pathlib import Path

import pytest
from errors_help import raises
from hypothesis import given, settings
from hypothesis import strategies as st
from sweep_cases import UPSAMPLERS, axis, base, sweep

from cascadezoo.errors import InputError, SpecError, UnknownNameError
from cascadezoo.sweep.cells import load_sweep


def faults(data) -> list[str]:
    with pytest.raises(SpecError) as caught:
        load_sweep(data)
    return [str(problem) for problem in caught.value.problems]


def test_all_faults_of_a_file_at_once():
    result = faults(
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
    text = "\n".join(result)
    assert "axes.2: values are empty; give at least one" in text
    assert "nonsense: unknown key" in text
    assert (
        "axes.0.path: 'stages.upp' names nothing in the base spec: stages has no 'upp' (did you mean stages.up?)"
        in text
    )
    assert "(did you mean stages.up.config.hidden?)" in text
    assert "axes.3.values.1: has the label '0.1', as another value of the axis has" in text
    assert "axes.4.values.Bad Label: 'Bad Label' is no label" in text
    assert 'axes.4.values.text: is not a stage: give {"kind"' in text
    assert "axes.5.values.0: needs a label" in text
    assert "flow=bad: stages.0.config.channels: " in text
    assert len(result) == 9


def test_faults_of_the_base_and_of_the_axes_together():
    data = sweep(axis("seed", "seed", []))
    data["base"]["stages"][1]["config"]["hiden"] = 3
    data["base"]["training"]["batch_size"] = 0
    result = faults(data)
    assert result[0] == "axes.0: values are empty; give at least one"
    assert [t.partition(":")[0] for t in result[1:]] == [
        "base.training.batch_size",
        "base.stages.1.config.hiden",
    ]


def test_a_fault_of_an_alternative_is_told_once():
    values = {**UPSAMPLERS, "wrong": {"kind": "pixelshuffle.v1", "config": {"hiden": 3}}}
    data = sweep(
        axis("up", "stages.up", values),
        axis("lr", "training.optimizer.lr", [0.1, 0.2]),
        axis("seed", "seed", [0, 1, -1]),
    )
    data["axes"][2]["values"] = {"a": 0, "b": -1}
    assert faults(data) == [
        "seed=b: seed: input should be greater than or equal to 0, not -1",
        "up=wrong: stages.1.config.hiden: unknown key",
    ]


def test_a_fault_of_a_combination_names_both():
    data = sweep(
        axis("size", "stages.coarse.config.size", {"small": 4, "big": 5}),
        axis("factor", "stages.up.config.factor", {"two": 2, "four": 4}),
        axis("seed", "seed", [0, 1]),
    )
    result = faults(data)
    assert len(result) == 3
    assert result[0].startswith("size=small factor=four: stages.0.config.size: is 4")
    assert result[1].startswith("size=big factor=two: stages.0.config.size: is 5")


def test_a_fault_of_every_cell():
    data = sweep(axis("seed", "seed", {"a": -1, "b": -1}))
    (result,) = faults(data)
    assert result.startswith("every cell: seed: ")


def test_two_cells_of_one_name_are_both_told():
    data = sweep(
        axis("a", "data.flip", {"x-y": True, "x": False}),
        axis("b", "training.batch_size", {"z": 8, "y-z": 16}),
    )
    (result,) = faults(data)
    assert "two cells would have the name 'x-y-z'" in result
    assert "(a=x-y, b=z) and (a=x, b=y-z)" in result


def test_excludes_that_match_nothing():
    result = faults(
        sweep(
            exclude=[
                {"upsampler": "dae"},
                {"upsampeler": "interpolate"},
                {"seed": "s0", "upsampler": []},
                {},
            ]
        )
    )
    assert result == [
        "exclude.0.upsampler: 'dae' is not a label of 'upsampler' (there are pixelshuffle, interpolate)",
        "exclude.1.upsampeler: 'upsampeler' is not an axis (there are upsampler, seed)",
        "exclude.3: names no labels",
        "exclude.2: leaves out nothing: no cell has these labels",
    ]
    assert faults(sweep(exclude=[{"seed": ["s0", "s1"]}])) == ["exclude: leaves out every cell"]


def test_a_place_that_is_set_twice():
    values = {"a": {"stage": UPSAMPLERS["interpolate"], "settings": {"training.batch_size": 4}}}
    result = faults(
        sweep(
            axis("up", "stages.up", values),
            axis("batch", "training.batch_size", [4, 8]),
            axis("up2", "stages.1", UPSAMPLERS),
        )
    )
    assert result == [
        "axes.1.path: 'training.batch_size' is set by up=a already",
        "axes.2.path: 'stages.1' is set by axis 'up' already",
    ]


def test_too_many_cells():
    rows = [
        axis(f"a{i}", f"training.{n}", list(range(1, 23)))
        for i, n in enumerate(("batch_size", "log_steps", "checkpoint_seconds"))
    ]
    (result,) = faults(sweep(*rows))
    assert "22 x 22 x 22 = 10,648 cells are more than 10,000" in result


def test_two_axes_of_one_name_and_a_stage_that_would_be_renamed():
    result = faults(
        sweep(
            axis("up", "stages.up", {"a": {"kind": "interpolate.v1", "name": "down"}}),
            axis("up", "seed", [0]),
        )
    )
    assert result == [
        "axes.1.name: 'up' is the name of another axis already",
        "axes.0.values.a.name: is 'down', but a stage keeps its name, 'up' (leave name out)",
    ]


def test_cells_are_not_published(tmp_path: Path):
    (result,) = faults(sweep(base=base(publish={"to": str(tmp_path)})))
    assert result.startswith("base.publish: would publish every cell to one place")


def test_a_base_that_is_not_there(tmp_path: Path):
    (result,) = faults(sweep(base="nowhere.json"))
    assert result.startswith("base: spec 'nowhere.json'")
    with raises(UnknownNameError, "lookup-sweep", name="nix"):
        load_sweep("nix")
    (tmp_path / "bad.json").write_text('{"name": ')
    (result,) = faults(sweep(base=str(tmp_path / "bad.json")))
    assert "is not valid JSON" in result


def test_settings_that_lead_nowhere():
    (result,) = faults(sweep(settings={"stages.nix.kind": "flow"}))
    assert result.startswith("settings: 'stages.nix.kind=\"flow\"': no item 'nix'")


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
