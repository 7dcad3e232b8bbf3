"""A full disk during a training: a clear error, the former state, and a resumption."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from errors_help import check_error, raises
from full_disk import filled, largest_file, small_disk
from toys import toy_spec, toys
from train_cases import StopAfter, equal, trainer

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.cascade.weights import save_state
from cascadezoo.errors import CascadezooError, CheckpointError, DiskFullError, StoppedError
from cascadezoo.train.checkpoint import CheckpointStore
from cascadezoo.train.events import EventLog, read_event_rows
from cascadezoo.train.reflow import Pairs, PairStore
from cascadezoo.util.files import disk_full, system_error, write_atomically

PAGE = 4096
DAY = datetime.now(tz=UTC).toordinal()
KINDS = {"coarse": "generator", "up": "upsampler"}
PHASES = [{"name": "p", "train": ["coarse", "up"], "steps": 12}]


def cascade() -> Cascade:
    data = toy_spec(KINDS, PHASES)
    data["training"] |= {"checkpoint_seconds": 0, "log_steps": 1}
    return toys(data)


@pytest.fixture(scope="module")
def whole() -> Cascade:
    made = cascade()
    trainer(made).run()
    return made


def train(made: Cascade, run: Path, stop: int | None = None) -> None:
    events = EventLog(run / "events.jsonl")
    options = {} if stop is None else {"stop": StopAfter(stop)}
    try:
        trainer(made, run / "checkpoints", events=events, **options).run()
    finally:
        events.close()


def content(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def half(values: list[int]) -> list[object]:
    """Half of the values each day, the others on the next."""
    other = [pytest.mark.skipif((n + DAY) % 2 == 0, reason="another day") for n in range(2)]
    return [pytest.param(value, marks=other[n % 2]) for n, value in enumerate(values)]


@pytest.mark.slow
@pytest.mark.parametrize("pages", half([*range(7)]))
def test_a_training_on_a_full_disk_resumes(whole: Cascade, tmp_path: Path, pages: int) -> None:
    with small_disk(tmp_path / "run", 64 * PAGE) as run:
        with pytest.raises(StoppedError):
            train(cascade(), run, stop=3)
        with filled(run, pages * PAGE), pytest.raises(CascadezooError) as caught:
            train(cascade(), run)
        cls = type(caught.value)
        assert cls in (DiskFullError, CheckpointError)
        code = "disk-full" if cls is DiskFullError else "checkpoint-not-writable"
        check_error(caught.value, cls, code)
        assert caught.value.exit_code == 1
        assert "No space left on device" in caught.value.what
        assert "same command" in str(caught.value.hint)
        assert CheckpointStore(run / "checkpoints").newest().position.step >= 3
        again = cascade()
        train(again, run)
        assert equal(again, whole)
        rows = read_event_rows(run / "events.jsonl")
        assert rows.dropped == 0
        steps = [row["step"] for row in rows.rows if row["event"] == "log"]
        assert steps == list(range(1, 13))
        assert not [p for p in run.rglob("*") if p.name.endswith(".tmp")]


@pytest.mark.slow
@pytest.mark.parametrize("size", half([0, 10, 100, 400, 1000, 2000]))
def test_the_former_checkpoint_stays(tmp_path: Path, size: int) -> None:
    with pytest.raises(StoppedError):
        trainer(cascade(), tmp_path, stop=StopAfter(3)).run()
    store = CheckpointStore(tmp_path)
    newest = store.newest()
    later = cascade()
    run = trainer(later, tmp_path)
    with (
        largest_file(size),
        raises(CheckpointError, "checkpoint-not-writable", path=tmp_path, step=4) as caught,
    ):
        run.run()
    assert "File too large" in caught.value.what
    assert store.newest().position == newest.position
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        f"step-{step:09d}-phase-0" for step in store.steps()
    )


def test_an_event_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    log.write("log", step=1)
    before = path.read_bytes()
    for extra in (0, 1, 7, 30):
        with (
            largest_file(len(before) + extra),
            raises(DiskFullError, "disk-full", path="events.jsonl") as caught,
        ):
            log.write("log", step=2, losses={"a": 0.5})
        assert "resume" in str(caught.value.hint)
        assert path.read_bytes() == before
    log.write("log", step=2)
    with largest_file(10), raises(DiskFullError, "disk-full", path="events.jsonl"):
        log.rewind(1)
    log.close()
    assert [row["step"] for row in read_event_rows(path).rows] == [1, 2]
    assert [p.name for p in tmp_path.iterdir()] == ["events.jsonl"]


@pytest.mark.parametrize("size", [0, 8, 100, 3000])
def test_weights_and_pairs_on_a_full_disk(tmp_path: Path, size: int) -> None:
    tensor = torch.zeros(10, 3, 8, 8)
    path = tmp_path / "a.safetensors"
    with largest_file(size), pytest.raises(OSError, match="File too large") as caught:
        save_state({"a": tensor}, path)
    assert disk_full(caught.value, path).code == "disk-full"
    store = PairStore(tmp_path / "pairs", "d")
    pairs = Pairs(tensor, tensor + 1, None)
    with (
        largest_file(size),
        raises(CheckpointError, "checkpoint-pairs-not-writable", path="pairs") as failed,
    ):
        store.save(1, pairs)
    assert failed.value.exit_code == 1
    assert store.load(1) is None
    store.clear(before=0)
    assert list(store.folder.iterdir()) == []
    store.save(1, pairs)
    assert store.load(1).digest() == pairs.digest()


@pytest.mark.parametrize("size", [0, 20, 60])
def test_a_saved_model_keeps_its_weights(tmp_path: Path, size: int) -> None:
    made = cascade()
    made.save_pretrained(tmp_path / "model")
    before = content(tmp_path / "model")
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(1)
    with largest_file(size), raises(DiskFullError, "disk-full", path="model") as caught:
        made.save_pretrained(tmp_path / "model")
    assert caught.value.exit_code == 1
    assert content(tmp_path / "model") == before
    made.save_pretrained(tmp_path / "model")
    assert content(tmp_path / "model") != before


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, b"old")
    with largest_file(2), pytest.raises(OSError, match="File too large"):
        write_atomically(path, b"newer")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_errors_of_other_causes_are_no_full_disk(tmp_path: Path) -> None:
    for error in (
        PermissionError(13, "no"),
        OSError("(os error 999999)"),
        ValueError("x"),
        RuntimeError("I/O error: No such file or directory (os error 2)"),
    ):
        assert disk_full(error, tmp_path) is None
    assert system_error(ValueError("x")) is None
    assert system_error(RuntimeError("a (os error 122)")).errno == 122
    assert disk_full(RuntimeError("a (os error 122)"), tmp_path).code == "disk-full"
