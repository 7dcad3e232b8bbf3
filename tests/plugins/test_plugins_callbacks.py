"""Callbacks: their events, that they do not change the training, and their failures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from all_hooks import build, recorded, spec


def test_callbacks_do_not_change_the_training(tmp_path: Path, here: Path) -> None:
    with_one, without = tmp_path / "with", tmp_path / "without"
    plain = spec()
    plain["training"]["callbacks"] = []
    for folder, data in ((with_one, spec()), (without, plain)):
        assert build(folder, data).exit_code == 0
    for name in ("coarse", "refine"):
        place = Path("run", "model", "stages", name, "model.safetensors")
        assert (with_one / place).read_bytes() == (without / place).read_bytes()
    runs = [json.loads((f / "run" / "run.json").read_text()) for f in (with_one, without)]
    assert runs[0]["training_digest"] == runs[1]["training_digest"]


@pytest.mark.slow
@pytest.mark.parametrize("event", ["step", "epoch", "phase"])
def test_a_callback_that_fails_ends_the_build_after_a_checkpoint(
    event: str, tmp_path: Path, here: Path
) -> None:
    done = build(tmp_path, spec(fail=event), "--json")
    assert done.exit_code == 1
    error = json.loads(done.stderr.splitlines()[-1])["error"]
    assert (error["code"], error["fields"]["name"]) == ("plugin-callback-failed", "all-callback")
    assert f"on_{event}: RuntimeError: no more {event}" in error["message"]
    assert "tracker.py:" in error["message"]
    assert "--set 'training.callbacks=[]'" in error["hint"]
    assert recorded(tmp_path)[-1] == "close"
    assert sum(line.startswith(event) for line in recorded(tmp_path)) == 1  # not called again
    checkpoints = list((tmp_path / "run" / "checkpoints").glob("step-*"))
    assert bool(checkpoints) == (event != "phase")  # nothing is trained before the first phase
    again = build(tmp_path, spec(fail=event), "--set", "training.callbacks=[]")
    assert again.exit_code == 0, again.stderr
    # The weights equal those of an uninterrupted build.
    uninterrupted = tmp_path / "uninterrupted"
    assert build(uninterrupted, spec()).exit_code == 0
    place = Path("run", "model", "stages", "refine", "model.safetensors")
    assert (tmp_path / place).read_bytes() == (uninterrupted / place).read_bytes()


@pytest.mark.parametrize("event", ["run", "figure", "close"])
def test_a_callback_that_fails_outside_the_training(event: str, tmp_path: Path, here: Path) -> None:
    done = build(tmp_path, spec(fail=event), "--json")
    assert done.exit_code == 1
    error = json.loads(done.stderr.splitlines()[-1])["error"]
    assert (error["code"], error["fields"]["name"]) == ("plugin-callback-failed", "all-callback")
    assert f"RuntimeError: no more {event}" in error["message"]
    built = (tmp_path / "run" / "model" / "config.json").is_file()
    assert built == (event != "run")
    if event == "run":
        assert not (tmp_path / "run" / "checkpoints").exists()
