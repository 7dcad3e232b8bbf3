"""What a newcomer types: names for labels, options of other tools, runs that do not exist."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from errors_help import check_failed
from PIL import Image

from cascadezoo import Cascade


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def hint(result: Any) -> str:
    return str(json.loads(result.stderr)["error"]["hint"])


def test_a_label_by_name(invoke: Any) -> None:
    common = ("-q", "-n", 3, "--steps", 1, "--json")
    result = invoke(
        "sample", "shapes-tiny", "--label", "star", "--label", "2", *common, "-o", "a.npz"
    )
    assert result.exit_code == 0, result.stderr
    names = Cascade.from_pretrained("shapes-tiny").class_names or ()
    star = names.index("star")
    assert json.loads(result.stdout)["labels"] == [
        {"label": star, "name": "star"},
        {"label": 2, "name": names[2]},
    ]
    with np.load("a.npz") as arrays:
        assert arrays["arr_1"].tolist() == [star, 2, star]
        assert arrays["class_names"].tolist() == list(names)


def test_an_unknown_label_lists_the_classes(invoke: Any) -> None:
    result = invoke("sample", "shapes-tiny", "--label", "stars", "--json")
    check_failed(result, "sample-class-unknown", label="stars")
    assert hint(result).startswith("did you mean 'star'? the classes are 0 ")
    assert result.exit_code == 2
    result = invoke("sample", "shapes-tiny", "--label", "99", "--json")
    check_failed(result, "sample-label-out-of-range", label=99)
    result = invoke("sample", "shapes-tiny", "--negative-label", "sta", "--json")
    check_failed(result, "sample-class-unknown", label="sta")


def test_an_unknown_sampler_names_stages_and_samplers(invoke: Any) -> None:
    result = invoke("sample", "shapes-tiny", "--sampler", "ddim", "-q", "--json")
    check_failed(result, "sample-sampler-unknown", name="ddim", stage="coarse")
    assert hint(result) == "the samplers are coarse: euler, heun, midpoint"


def test_a_run_that_does_not_exist(invoke: Any) -> None:
    result = invoke("sample", "runs/none", "--json")
    check_failed(result, "reference-no-run", name="runs/none", runs=[])
    assert hint(result) == (
        "cascadezoo build shapes-demo builds runs/shapes-demo; for a repo on the Hub, write "
        "hf://runs/none"
    )
    for name in ("digits", "shapes"):
        Path("runs", name).mkdir(parents=True)
        Path("runs", name, "run.json").write_text("{}")
    Path("runs", "notes").mkdir()
    result = invoke("sample", "runs/shape", "--json")
    check_failed(result, "reference-no-run", name="runs/shape", runs=["digits", "shapes"])
    assert hint(result).startswith("did you mean runs/shapes? runs has digits, shapes; for a repo")
    assert result.exit_code == 2
    result = invoke("sample", "digits", "--json")
    check_failed(result, "reference-not-found", name="digits")
    assert hint(result) == "did you mean runs/digits?"


@pytest.mark.parametrize("command", ["build", "validate", "plan"])
@pytest.mark.parametrize(
    ("option", "path"),
    [
        ("--epochs", "training.phases.PHASE.epochs"),
        ("--batch-size", "training.batch_size"),
        ("--lr", "training.optimizer.lr"),
        ("--num_classes", "data.num_classes"),
    ],
)
def test_an_option_of_the_training_points_to_set(
    invoke: Any, command: str, option: str, path: str
) -> None:
    result = invoke(command, "shapes-demo", option, "10", "--json")
    check_failed(result, "usage")
    assert f"--set {path}=VALUE" in hint(result)


def test_other_unknown_options(invoke: Any) -> None:
    result = invoke("build", "shapes-demo", "--colour", "red", "--json")
    check_failed(result, "usage")
    assert hint(result).startswith("what a spec states is changed by --set PATH=VALUE; ")
    result = invoke("sample", "shapes-tiny", "--epochs", "3", "--json")
    check_failed(result, "usage")
    assert "--set" not in hint(result)


def test_validate_and_build_agree(invoke: Any) -> None:
    for command in ("validate", "plan", "build"):
        result = invoke(command, "shapes-demo", "--set", "data.num_classes=4", "--json")
        check_failed(result, "spec", problems={"data.num_classes": "too-few-classes"})
        settings = ("--set", "evaluation.extractor=inception", "--set", "evaluation.samples=1000")
        metrics = ("--set", 'evaluation.metrics=["kid","fid"]')
        result = invoke(command, "shapes-demo", *settings, *metrics, "--json")
        check_failed(result, "spec", problems={"evaluation.samples": "too-few-images"})
    assert not Path("runs").exists()


def test_a_destination_is_checked_without_the_network(invoke: Any) -> None:
    Path("taken").mkdir()
    Path("taken", "notes.txt").write_text("mine")
    for command in ("validate", "plan"):
        result = invoke(command, "shapes-demo", "--set", 'publish={"to": "./taken"}', "--json")
        assert result.exit_code == 2
        assert json.loads(result.stderr)["error"]["code"].startswith("run-folder")
        result = invoke(command, "shapes-demo", "--set", 'publish={"to": "org/name"}', "--json")
        assert result.exit_code == 0, result.stderr


def test_a_large_picture(invoke: Any) -> None:
    """A folder with one picture of 1280x900 pixels: warned of, and refused by build."""
    Path("pictures").mkdir()
    Image.new("RGB", (1280, 900)).save("pictures/a.png")
    spec = {
        "name": "large",
        "data": {"source": "folder", "config": {"path": "pictures"}},
        "stages": [{"name": "coarse", "kind": "flow.v1"}],
        "evaluation": {"metrics": []},
    }
    Path("large.json").write_text(json.dumps(spec))
    result = invoke("validate", "large.json", "--json")
    assert result.exit_code == 0
    (warning,) = json.loads(result.stdout)["warnings"]
    assert "900x900" in warning
    result = invoke("build", "large.json", "--json")
    check_failed(result, "resources-activations")
