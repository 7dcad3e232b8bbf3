"""``cascadezoo sweep`` as it is called."""

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
    found = invoke("--list", "--json")
    rows = {row["name"]: row["description"] for row in json.loads(found.stdout)}
    assert rows["shapes-ablation-tiny"].startswith("Two generators and two upsamplers")
    assert "shapes-ablation-tiny" in invoke("--list").stdout


def test_dry_run_lists_cells_and_writes_nothing(invoke: Invoke, tmp_path: Path):
    found = invoke("mine.json", "--dry-run", "--only", "seed=s1")
    assert found.exit_code == 0
    head, *rows, last = found.stdout.splitlines()
    assert head.split() == ["CELL", "COARSE", "UP", "PARAMETERS"]
    assert [row.split()[0] for row in rows] == ["pixelshuffle-s1", "interpolate-s1"]
    assert rows[1].split()[-3] == "0"
    assert last == "2 of 4 cells of mini; nothing was written"
    assert [p.name for p in tmp_path.iterdir()] == ["mine.json"]


def test_dry_run_as_json(invoke: Invoke):
    result = json.loads(invoke("mine.json", "--dry-run", "--json").stdout)
    assert result["axes"] == ["upsampler", "seed"]
    first = result["cells"][0]
    assert first["labels"] == {"upsampler": "pixelshuffle", "seed": "s0"}
    assert first["parameters"] == sum(s["parameters"] for s in first["stages"]) > 0


def test_from_standard_input(invoke: Invoke):
    found = invoke("-", "--dry-run", stdin=json.dumps(sweep(axis("seed", "seed", [5]))))
    assert found.stdout.splitlines()[1].startswith("s5 ")


@pytest.mark.parametrize(
    ("args", "result"),
    [
        ((), "Missing argument 'SWEEP'"),
        (("nix",), "there is no sweep 'nix'"),
        (("mine.json", "--only", "a=b"), "Hint: the axes are upsampler, seed"),
        (("mine.json", "--set", "nix"), "path=value"),
        (("mine.json", "--set", "seed=-1"), "base.seed: input should be greater"),
        (("mine.json", "--jobs", "0"), "not a whole number from 1"),
        (("mine.json", "--ray-address", "auto"), "Hint: add --executor ray"),
        (("mine.json", "--device", "abacus"), "abacus"),
        (("mine.json", "-o", "."), "not a sweep's folder, and it is not empty"),
    ],
)
def test_bad_calls(invoke: Invoke, tmp_path: Path, args: tuple[str, ...], result: str):
    found = invoke(*args)
    assert found.exit_code == 2
    assert result in found.stderr
    assert not (tmp_path / "sweeps" / "mini" / "cells").exists()


def test_faults_as_json(invoke: Invoke, tmp_path: Path):
    (tmp_path / "bad.json").write_text(json.dumps(sweep(axis("a", "sed", [0]))))
    error = json.loads(invoke("bad.json", "--json").stderr)["error"]
    assert error["problems"] == [
        {
            "path": "axes.0.path",
            "code": "unknown-path",
            "message": "'sed' names nothing in the base spec: the spec has no 'sed'",
            "hint": "did you mean seed?",
        }
    ]
