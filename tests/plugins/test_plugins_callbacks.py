"""Callbacks: what they are told, that they change nothing, and what happens where they fail."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from all_hooks import build, result, spec


def test_callbacks_change_nothing_of_what_is_trained(tmp_path: Path, here: Path) -> None:
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


@pytest.mark.parametrize("where", ["step", "epoch", "phase"])
def test_a_callback_that_fails_ends_the_build_after_a_checkpoint(
    where: str, tmp_path: Path, here: Path
) -> None:
    done = build(tmp_path, spec(fail=where))
    assert done.exit_code == 1
    assert (
        f"callback 'all-callback' failed in on_{where}: RuntimeError: no more {where}"
        in done.stderr
    )
    assert "tracker.py:" in done.stderr
    assert "--set 'training.callbacks=[]'" in done.stderr
    assert result(tmp_path)[-1] == "close"
    assert sum(line.startswith(where) for line in result(tmp_path)) == 1  # not told again
    kept = list((tmp_path / "run" / "checkpoints").glob("step-*"))
    assert bool(kept) == (where != "phase")  # a phase that starts has trained nothing yet
    again = build(tmp_path, spec(fail=where), "--set", "training.callbacks=[]")
    assert again.exit_code == 0, again.stderr
    # The same weights as one that was never stopped.
    straight = tmp_path / "straight"
    assert build(straight, spec()).exit_code == 0
    place = Path("run", "model", "stages", "refine", "model.safetensors")
    assert (tmp_path / place).read_bytes() == (straight / place).read_bytes()


@pytest.mark.parametrize("where", ["run", "figure", "close"])
def test_a_callback_that_fails_outside_of_the_training(
    where: str, tmp_path: Path, here: Path
) -> None:
    done = build(tmp_path, spec(fail=where))
    assert done.exit_code == 1
    assert f"RuntimeError: no more {where}" in done.stderr
    made = (tmp_path / "run" / "model" / "config.json").is_file()
    assert made == (where != "run")
    if where == "run":
        assert "failed to start" in done.stderr
        assert not (tmp_path / "run" / "checkpoints").exists()
