"""A full disk while the model is written, and damaged events of a finished training."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
from build_cases import QUICK, TINY, same
from errors_help import raises
from full_disk import filled, largest_file, small_disk

from cascadezoo.build.build import build_cascade
from cascadezoo.build.run_folder import RunFolder
from cascadezoo.errors import DiskFullError
from cascadezoo.report.course import read_course
from cascadezoo.train.checkpoint import CheckpointStore
from cascadezoo.train.events import read_event_rows


def content(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


@pytest.mark.parametrize("share", [0.0, pytest.param(0.5, marks=pytest.mark.slow), 0.9])
def test_a_full_disk_keeps_the_former_model(built: Path, tmp_path: Path, share: float) -> None:
    size = sum(map(len, content(built / "model").values()))
    # curves.png is written before the model.
    left = max(int(share * size), (built / "curves.png").stat().st_size + 40_000)
    assert left < size
    with small_disk(tmp_path / "disk", 1 << 24) as disk:
        run = disk / "run"
        shutil.copytree(built, run)
        before = content(run / "model")
        with (
            filled(disk, left),
            raises(DiskFullError, "disk-full", path="model") as caught,
        ):
            build_cascade(TINY, run, device="cpu", settings=QUICK)
        assert "same command" in str(caught.value.hint)
        assert caught.value.exit_code == 1
        assert content(run / "model") == before
        assert not list(run.glob(".model*"))
        build_cascade(TINY, run, device="cpu", settings=QUICK)
        assert same(run / "model", built / "model")
        assert content(run / "model") != before


@pytest.mark.parametrize("size", [0, 100])
def test_a_full_disk_at_the_start(tmp_path: Path, size: int) -> None:
    with largest_file(size), raises(DiskFullError, "disk-full", path="run") as caught:
        build_cascade(TINY, tmp_path / "run", device="cpu")
    assert caught.value.exit_code == 1
    with RunFolder(tmp_path / "run").locked():
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]


def test_a_model_between_two_renames_is_restored(built: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    shutil.copytree(built / "model", tmp_path / ".model.old")
    before = content(tmp_path / ".model.old")
    with pytest.raises(KeyError), run.new_model():
        raise KeyError
    assert content(run.model) == before
    assert not list(tmp_path.glob(".model*"))


def test_damaged_events_do_not_block_the_model_or_the_report(built: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(built, run)
    path = run / "events.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    count = 0
    for index in random.Random(5).sample(range(len(lines)), len(lines) // 2):
        lines[index] = [b"\xff" + lines[index], b'{"event": "epoch", "step": 1}\n', b"\0\0\n"][
            index % 3
        ]
        count += index % 3 != 1
    path.write_bytes(b"".join(lines))
    assert read_event_rows(path).dropped == count
    build_cascade(TINY, run, device="cpu", settings=QUICK)
    assert same(run / "model", built / "model")
    metrics = json.loads((run / "model/metrics.json").read_text())
    assert set(metrics["training"]["losses"]) <= {"coarse", "cascade", "joint"}
    assert read_course(path).dropped == count


def test_a_trained_build_whose_last_checkpoint_is_damaged_trains_the_rest(
    built: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(built, run)
    newest = max((run / "checkpoints").glob("step-*"))
    (newest / "weights.safetensors").write_bytes(b"")
    build_cascade(TINY, run, device="cpu", settings=QUICK)
    assert same(run / "model", built / "model")
    rows = read_event_rows(run / "events.jsonl").rows
    assert [r["checkpoint"] for r in rows if r["event"] == "checkpoint-damaged"] == [newest.name]
    assert CheckpointStore(run / "checkpoints").newest().position.phase == 3
