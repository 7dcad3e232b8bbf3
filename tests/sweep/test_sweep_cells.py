"""Sweep files become cells."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from errors_help import raises
from sweep_cases import UPSAMPLERS, axis, base, sweep

from cascadezoo.errors import InputError, SpecError
from cascadezoo.spec import load_spec
from cascadezoo.sweep.cells import load_sweep
from cascadezoo.sweep.spec import SweepSpec, shipped_sweeps
from cascadezoo.sweep.spec_paths import canonical, fault_of, nearest, put


def faults(data) -> list[tuple[str, str]]:
    """The path and the code of each problem."""
    with pytest.raises(SpecError) as caught:
        load_sweep(data)
    return [(problem.path, problem.code) for problem in caught.value.problems]


# --- cells


def test_every_combination_in_order():
    made = load_sweep(sweep())
    assert [cell.name for cell in made.cells] == [
        "pixelshuffle-s0",
        "pixelshuffle-s1",
        "interpolate-s0",
        "interpolate-s1",
    ]
    assert made.cells[1].labels == {"upsampler": "pixelshuffle", "seed": "s1"}
    assert [cell.spec["seed"] for cell in made.cells] == [0, 1, 0, 1]
    assert (made.axes, made.seed_axes, made.stage_axes) == (
        ["upsampler", "seed"],
        ["seed"],
        ["upsampler"],
    )


def test_cells_are_resolved_specs_of_their_own():
    made = load_sweep(sweep())
    for cell in made.cells:
        resolved = load_spec(cell.spec)
        assert resolved.spec.to_dict() == cell.spec
        assert (resolved.spec.digest(), resolved.spec.training_digest()) == (
            cell.digest,
            cell.training_digest,
        )
        assert cell.spec["name"] == f"mini-{cell.name}"
    assert len({cell.training_digest for cell in made.cells}) == 4


def test_a_stage_alternative_keeps_the_name_and_replaces_the_rest():
    (_, cell) = load_sweep(sweep(axis("up", "stages.1", UPSAMPLERS))).cells
    stage = cell.spec["stages"][1]
    assert (stage["name"], stage["kind"]) == ("up", "interpolate.v1")
    assert "hidden" not in stage["config"]


def test_stages_without_parameters_leave_the_phases():
    (learns, still) = load_sweep(sweep(axis("up", "stages.up", UPSAMPLERS))).cells
    assert [p["train"] for p in learns.spec["training"]["phases"]] == [["coarse", "up"], ["up"]]
    assert [p["train"] for p in still.spec["training"]["phases"]] == [["coarse"]]


def test_an_alternative_has_its_own_settings():
    values = {
        "slow": {
            "stage": UPSAMPLERS["pixelshuffle"],
            "settings": {"training.optimizer.lr": 1e-4, "training.phases.first.steps": 7},
        },
        "plain": UPSAMPLERS["pixelshuffle"],
    }
    slow, plain = load_sweep(sweep(axis("up", "stages.up", values))).cells
    assert slow.spec["training"]["optimizer"]["lr"] == 1e-4
    assert slow.spec["training"]["phases"][0]["steps"] == 7
    assert plain.spec["training"]["optimizer"]["lr"] == 2e-4
    assert plain.spec["training"]["phases"][0]["steps"] == 4


def test_an_axis_within_a_stage_that_another_axis_replaces():
    made = load_sweep(
        sweep(
            axis("factor", "stages.up.config.hidden", [4, 8]),
            axis("up", "stages.up", {"shuffle": {"kind": "pixelshuffle.v1"}}),
        )
    )
    assert [c.spec["stages"][1]["config"]["hidden"] for c in made.cells] == [4, 8]


def test_an_axis_within_default_phases():
    data = base()
    del data["training"]["phases"]
    made = load_sweep(
        sweep(
            axis("epochs", "training.phases.coarse.epochs", [1, 2]),
            axis("lr", "training.optimizer.lr", [0.001, 0.002]),
            base=data,
        )
    )
    phases = [cell.spec["training"]["phases"] for cell in made.cells]
    assert [[p["epochs"] for p in rows] for rows in phases] == [
        [1, 35, 30],
        [1, 35, 30],
        [2, 35, 30],
        [2, 35, 30],
    ]
    assert [rows[0]["optimizer"]["lr"] for rows in phases] == [0.001, 0.002] * 2


def test_labels_of_values():
    rows = axis("values", "training.ema", {"none": None, "long": {"decay": 0.9}})
    lr = axis("lr", "training.optimizer.lr", [1e-05, 0.001])
    flip = axis("flip", "data.flip", [True, False])
    names = [cell.name for cell in load_sweep(sweep(rows, lr, flip)).cells]
    assert names[:3] == ["none-1e-05-true", "none-1e-05-false", "none-0.001-true"]
    assert len(names) == 8


def test_settings_of_the_sweep_and_of_the_command_line():
    made = load_sweep(sweep(settings={"training.batch_size": 8}), settings=["evaluation.seed=20"])
    assert {c.spec["training"]["batch_size"] for c in made.cells} == {8}
    assert {c.spec["evaluation"]["seed"] for c in made.cells} == {20}


def test_excluded_combinations():
    made = load_sweep(
        sweep(exclude=[{"upsampler": "interpolate", "seed": ["s1"]}, {"seed": ["s0"]}])
    )
    assert [cell.name for cell in made.cells] == ["pixelshuffle-s1"]


def test_parameters_are_matched_in_every_cell():
    values = {
        "shuffle": {"kind": "pixelshuffle.v1"},
        "resnet": {"kind": "resnet-upsampler.v1"},
        "interpolate": {"kind": "interpolate.v1"},
    }
    made = load_sweep(sweep(axis("up", "stages.up", values), match_parameters={"up": 40_000}))
    from cascadezoo.sweep.cell_plans import plan_cells

    plans = plan_cells(made.cells, device="cpu")
    counts = [plans[cell.name].stages[1].parameters for cell in made.cells]
    assert counts[:2] == pytest.approx([40_000] * 2, rel=0.1)
    assert counts[2] == 0


def test_parameters_that_cannot_be_matched_name_the_alternative():
    values = {"shuffle": {"kind": "pixelshuffle.v1"}, "interpolate": {"kind": "interpolate.v1"}}
    data = sweep(axis("up", "stages.up", values), match_parameters={"up": 1, "nix": 5})
    assert faults(data) == [("match_parameters.nix", "unknown-stage")]
    data["match_parameters"] = {"up": 1}
    assert faults(data) == [("cell shuffle: match_parameters", "input-match-unreachable")]


def test_alternatives_of_any_path_have_their_own_settings():
    data = base()
    alone = [data["stages"][0] | {"config": data["stages"][0]["config"] | {"size": 8}}]
    phases = [{"name": "only", "train": ["coarse"], "steps": 9}]
    values = {
        "two": data["stages"],
        "one": {"value": alone, "settings": {"training.phases": phases}},
    }
    two, one = load_sweep(sweep(axis("cascade", "stages", values))).cells
    assert [stage["name"] for stage in two.spec["stages"]] == ["coarse", "up"]
    assert [phase["name"] for phase in two.spec["training"]["phases"]] == ["first", "last"]
    assert [stage["name"] for stage in one.spec["stages"]] == ["coarse"]
    assert [phase["steps"] for phase in one.spec["training"]["phases"]] == [9]
    values["one"]["settings"] = {"training.nothing": 1}
    assert faults(sweep(axis("cascade", "stages", values))) == [
        ("axes.0.values.one.settings.training.nothing", "unknown-path")
    ]
    values["one"]["settings"] = 3
    assert ("axes.0.values.one", "value-form") in faults(sweep(axis("cascade", "stages", values)))


def test_the_training_flops_of_every_cell_are_matched():
    from cascadezoo.sweep.cell_plans import plan_cells

    made = load_sweep(sweep(match_flops=1e9))
    plans = plan_cells(made.cells, device="cpu")
    flops = [plans[cell.name].training_flops(16, 0) for cell in made.cells]
    assert flops == pytest.approx([1e9] * 4, rel=0.02)
    steps = [[p["steps"] for p in cell.spec["training"]["phases"]] for cell in made.cells]
    assert steps[0] == steps[1]
    assert steps[0][0] == pytest.approx(steps[0][1], abs=1)
    assert len(steps[2]) == 1
    assert steps[2][0] > steps[0][0]
    more = load_sweep(sweep(match_flops=1e9), settings=["match_flops=2e9", "seed=5"])
    assert more.cells[0].spec["training"]["phases"][0]["steps"] == pytest.approx(
        2 * steps[0][0], abs=1
    )
    assert more.settings == ("match_flops=2e9", "seed=5")


def test_training_flops_that_cannot_be_matched_name_the_alternative():
    data = sweep(axis("up", "stages.up", UPSAMPLERS), match_flops=1e6)
    rows = faults(data)
    assert {code for _, code in rows} == {"input-match-flops-unreachable"}
    assert all(path.endswith("match_flops") for path, _ in rows)
    with pytest.raises(SpecError) as caught:
        load_sweep(sweep(), settings=["match_flops=many"])
    assert [problem.path for problem in caught.value.problems] == ["match_flops"]


def test_changed_evaluation_is_the_same_training():
    first, other = load_sweep(sweep()), load_sweep(sweep(), settings=["evaluation.seed=20"])
    assert first.digest == other.digest
    assert first.cells[0].digest != other.cells[0].digest
    assert load_sweep(sweep(), settings=["training.batch_size=8"]).digest != first.digest


def test_a_base_beside_the_file(tmp_path: Path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "base.json").write_text(json.dumps(base()))
    path = tmp_path / "deep" / "sweep.json"
    path.write_text(json.dumps(sweep(base="base.json")))
    assert len(load_sweep(path).cells) == 4


def test_a_sweep_as_a_model():
    spec = SweepSpec.model_validate(sweep())
    assert load_sweep(spec).digest == load_sweep(sweep()).digest
    assert SweepSpec.model_validate(spec.to_dict()) == spec


def test_shipped_sweeps_are_valid():
    assert "shapes-ablation-tiny" in shipped_sweeps()
    for name in shipped_sweeps():
        assert load_sweep(name).name == name


def test_choosing_cells():
    made = load_sweep(sweep())
    assert [c.name for c in made.choose(["upsampler=interpolate"])] == [
        "interpolate-s0",
        "interpolate-s1",
    ]
    assert [c.name for c in made.choose(["seed=s1", "upsampler=interpolate,pixelshuffle"])] == [
        "pixelshuffle-s1",
        "interpolate-s1",
    ]
    with raises(InputError, "input-only-unknown", name="dae") as caught:
        made.choose(["upsampler=dae"])
    assert "pixelshuffle, interpolate" in str(caught.value.hint)
    with raises(InputError, "input-only-form"):
        made.choose(["interpolate"])
    with raises(InputError, "input-only-nothing", name="mini"):
        made.choose(["seed=s0", "seed=s1"])


# --- paths

TREE = {"seed": 0, "stages": [{"name": "up", "config": {"hidden": 3}}], "publish": None}


def test_paths_of_a_tree():
    assert canonical(TREE, "stages.up.config") == canonical(TREE, "stages.0.config")
    assert fault_of(TREE, "stages.up.config.hidden") is None
    assert fault_of(TREE, "publish.to") is None
    assert "'down'" in str(fault_of(TREE, "stages.down"))
    assert "seed" in str(fault_of(TREE, "seed.a"))
    assert "'nix'" in str(fault_of(TREE, "nix"))
    assert nearest(TREE, "stages.up.conf.hidden") == "stages.up.config.hidden"
    assert nearest(TREE, "zzz") is None


def test_put_keeps_other_values():
    data = {"stages": [{"name": "up"}]}
    put(data, "stages.up.config.hidden", 5, TREE)
    assert data == {"stages": [{"name": "up", "config": {"hidden": 5}}]}
    with pytest.raises(LookupError):
        put(data, "stages.down.config", 1, TREE)
