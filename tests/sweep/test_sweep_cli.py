"""The command ``cascadezoo sweep``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sweep_cases import axis, sweep

from cascadezoo.cli.main import main

Invoke = Callable[..., Result]


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.json").write_text(json.dumps(sweep()))

    def run(*args: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(main, ["sweep", *args], input=stdin, prog_name="cascadezoo")

    return run


def test_list(invoke: Invoke):
    result = invoke("--list", "--json")
    rows = {row["name"]: row["description"] for row in json.loads(result.stdout)}
    assert rows["shapes-ablation-tiny"].startswith("Two generators and two upsamplers")
    assert "shapes-ablation-tiny" in invoke("--list").stdout


def test_dry_run_lists_cells_and_writes_nothing(invoke: Invoke, tmp_path: Path):
    result = invoke("mine.json", "--dry-run", "--only", "seed=s1")
    assert result.exit_code == 0
    head, *rows, last = result.stdout.splitlines()
    assert head.split() == ["CELL", "COARSE", "UP", "PARAMETERS", "TO", "TRAIN", "TO", "SAMPLE"]
    assert [row.split()[0] for row in rows] == ["pixelshuffle-s1", "interpolate-s1"]
    assert rows[1].split()[3] == "0"
    assert rows[1].split()[-1] in ("k", "M")
    assert last == "2 of 4 cells of mini; nothing was written"
    assert [p.name for p in tmp_path.iterdir()] == ["mine.json"]


def test_dry_run_as_json(invoke: Invoke):
    plan = json.loads(invoke("mine.json", "--dry-run", "--json").stdout)
    assert plan["axes"] == ["upsampler", "seed"]
    first = plan["cells"][0]
    assert first["labels"] == {"upsampler": "pixelshuffle", "seed": "s0"}
    assert first["parameters"] == sum(s["parameters"] for s in first["stages"]) > 0
    assert first["training_flops"] > first["sampling_flops"] > 0


def test_from_standard_input(invoke: Invoke):
    result = invoke("-", "--dry-run", stdin=json.dumps(sweep(axis("seed", "seed", [5]))))
    assert result.stdout.splitlines()[1].startswith("s5 ")


@pytest.mark.parametrize(
    ("args", "code", "shown"),
    [
        ((), "usage", "SWEEP"),
        (("nix",), "lookup-sweep", "'nix'"),
        (("mine.json", "--only", "a=b"), "input-only-form", "upsampler, seed"),
        (("mine.json", "--set", "nix"), "input-setting-form", "'nix'"),
        (("mine.json", "--set", "seed=-1"), "spec", "base.seed"),
        (("mine.json", "--jobs", "0"), "usage", "--jobs"),
        (("mine.json", "--ray-address", "auto"), "input-ray-address", "--executor ray"),
        (("mine.json", "--device", "abacus"), "input-device-unknown", "'abacus'"),
        (("mine.json", "-o", "."), "run-folder-not-a-sweep", "mine.json"),
    ],
)
def test_bad_calls(invoke: Invoke, tmp_path: Path, args: tuple[str, ...], code: str, shown: str):
    result = invoke(*args, "--json")
    assert result.exit_code == 2
    assert json.loads(result.stderr)["error"]["code"] == code
    assert shown in result.stderr.replace('\\"', '"')
    assert not (tmp_path / "sweeps" / "mini" / "cells").exists()


def test_faults_as_json(invoke: Invoke, tmp_path: Path):
    (tmp_path / "bad.json").write_text(json.dumps(sweep(axis("a", "sed", [0]))))
    error = json.loads(invoke("bad.json", "--json").stderr)["error"]
    (problem,) = error["problems"]
    assert (problem["path"], problem["code"]) == ("axes.0.path", "unknown-path")
    assert "'sed'" in problem["message"]
    assert "seed" in problem["hint"]
