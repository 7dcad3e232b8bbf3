"""Checkpoints that are damaged, of an earlier format, or of another training."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from errors_help import raises
from toys import toy_spec, toys
from train_cases import COUNT, StopAfter, equal, trainer

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.data.base import ImageData
from cascadezoo.errors import CheckpointError, RunFolderError, StoppedError
from cascadezoo.train.checkpoint import Checkpoint, CheckpointStore, Position
from cascadezoo.train.events import EventLog, read_events
from cascadezoo.train.progress import QuietProgress
from cascadezoo.train.reflow import Pairs, PairStore

PHASES = [
    {"name": "a", "train": ["coarse"], "steps": 6},
    {"name": "b", "train": ["up"], "steps": 6},
]
FILES = ("weights.safetensors", "average.safetensors", "optimizer.pt")


def cascade(kinds: dict[str, str] | None = None, **changes: Any) -> Cascade:
    data = toy_spec(kinds or {"coarse": "generator", "up": "upsampler"}, PHASES)
    data["training"]["checkpoint_seconds"] = 0
    return toys(data | changes)


@pytest.fixture(scope="module")
def whole() -> Cascade:
    made = cascade()
    trainer(made).run()
    return made


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of steps 8 and 9."""
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(StoppedError):
        trainer(cascade(), folder, stop=StopAfter(9)).run()
    return folder


@pytest.fixture
def store(stopped: Path, tmp_path: Path) -> CheckpointStore:
    shutil.copytree(stopped, tmp_path / "checkpoints")
    return CheckpointStore(tmp_path / "checkpoints")


class Lines(QuietProgress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def newest(store: CheckpointStore) -> Path:
    return max(store.folder.glob("step-*"))


def only_newest(store: CheckpointStore) -> Path:
    folder = newest(store)
    for other in store.folder.iterdir():
        if other != folder:
            shutil.rmtree(other)
    return folder


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def is_damaged(store: CheckpointStore) -> bool:
    try:
        store.newest()
    except CheckpointError as error:
        return error.code == "checkpoint-none-whole"
    return False


@pytest.mark.parametrize("name", ["state.json", "seal"])
def test_every_changed_bit_of_the_state_and_its_seal_is_detected(
    store: CheckpointStore, name: str
) -> None:
    path = only_newest(store) / name
    assert store.newest() is not None
    data = path.read_bytes()
    accepted = []
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        if not is_damaged(store):
            accepted.append(bit)
    assert accepted == []
    path.write_bytes(data)
    assert store.newest() is not None


@pytest.mark.parametrize("name", FILES)
def test_changed_bits_of_the_other_files_are_detected(store: CheckpointStore, name: str) -> None:
    path = only_newest(store) / name
    data = path.read_bytes()
    bits = random.Random(name).sample(range(8 * len(data)), min(300, 8 * len(data)))
    accepted = []
    for bit in bits:
        flip(path, bit)
        if not is_damaged(store):
            accepted.append(bit)
        path.write_bytes(data)
    assert accepted == []


def truncated(folder: Path, name: str) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[:-1])


def emptied(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"")


def longer(folder: Path, name: str) -> None:
    with (folder / name).open("ab") as file:
        file.write(b" ")


def removed(folder: Path, name: str) -> None:
    (folder / name).unlink()


def a_folder(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / name).mkdir()


def of_the_older(folder: Path, name: str) -> None:
    (older,) = (path for path in folder.parent.glob("step-*") if path != folder)
    if name in ("average.safetensors", "optimizer.pt", "weights.safetensors"):
        # A file that equals that of the other checkpoint would be no damage.
        assert (older / name).read_bytes() != (folder / name).read_bytes()
    shutil.copy(older / name, folder / name)


DAMAGES = [truncated, emptied, longer, removed, a_folder, of_the_older]


@pytest.mark.parametrize("name", ["state.json", "seal", *FILES])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over(
    store: CheckpointStore, damage: Callable[[Path, str], None], name: str
) -> None:
    folder = newest(store)
    damage(folder, name)
    passed: dict[str, str] = {}
    older = store.newest(passed.__setitem__)
    assert older is not None
    assert older.position.global_step == 8
    assert list(passed) == [folder.name]


def test_a_training_goes_on_from_the_older_checkpoint_and_says_so(
    store: CheckpointStore, whole: Cascade, tmp_path: Path
) -> None:
    flip(newest(store) / "state.json", 77)
    name, progress = newest(store).name, Lines()
    events = EventLog(tmp_path / "events.jsonl")
    again = cascade()
    trainer(again, store.folder, events=events, progress=progress).run()
    events.close()
    assert equal(again, whole)
    (row,) = (r for r in read_events(events.path) if r["event"] == "checkpoint-damaged")
    assert (row["checkpoint"], row["resumed_step"]) == (name, 8)
    (line,) = (line for line in progress.lines if name in line)
    assert "step 8" in line
    assert store.steps() == [11, 12]


def test_damaged_checkpoints_do_not_displace_the_new_ones(store: CheckpointStore) -> None:
    """Two damaged checkpoints are later than the whole one, as many as are kept."""
    shutil.copytree(newest(store), store.folder / "step-000000010-phase-1")
    flip(newest(store) / "seal", 3)
    flip(store.folder / "step-000000009-phase-1" / "seal", 4)
    with pytest.raises(StoppedError):
        trainer(cascade(), store.folder, stop=StopAfter(1)).run()
    assert store.steps() == [8, 9]
    assert store.newest().position.global_step == 9


def test_phases_are_ordered_by_number(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=9)
    for phase in (9, 10):
        store.save(Checkpoint(Position(phase, 0, 20), "0" * 64, {"a": torch.ones(1)}))
    assert store.newest().position.phase == 10


def test_a_whole_checkpoint_is_never_removed_to_be_replaced(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    checkpoint = Checkpoint(Position(0, 3, 3, 1.0), "0" * 64, {"a": torch.ones(1)})
    path = store.save(checkpoint)
    inode = path.stat().st_ino
    store.save(checkpoint)
    assert path.stat().st_ino == inode
    truncated(path, "state.json")
    store.save(checkpoint)
    assert store.newest().position == checkpoint.position


def first_format(folder: Path) -> None:
    """Rewrite a checkpoint as version 0.1 first wrote it: without a seal."""
    state = json.loads((folder / "state.json").read_text())
    del state["format"], state["data_digest"]
    (folder / "state.json").write_text(json.dumps(state, indent=2))
    (folder / "seal").unlink()


def test_a_checkpoint_without_a_seal_resumes(store: CheckpointStore, whole: Cascade) -> None:
    first_format(newest(store))
    again = cascade()
    trainer(again, store.folder).run()
    assert equal(again, whole)


def test_most_changed_bits_of_an_unsealed_state_are_passed_over(store: CheckpointStore) -> None:
    """None crashes; a changed number within its range cannot be detected without a seal."""
    path = newest(store) / "state.json"
    first_format(path.parent)
    data = path.read_bytes()
    accepted, bits = 0, range(0, 8 * len(data), 13)
    for bit in bits:
        flip(path, bit)
        accepted += store.newest().position.global_step == 9
        path.write_bytes(data)
    assert accepted < 0.1 * len(bits)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 7},
        {"data": {"source": "shapes", "config": {"size": 8, "count": 48}}},
        {"stages": [*toy_spec({"coarse": "generator"})["stages"]]},
    ],
    ids=["seed", "data", "stages"],
)
def test_a_checkpoint_of_another_spec_is_refused(
    store: CheckpointStore, change: dict[str, Any]
) -> None:
    if "stages" in change:
        data = toy_spec({"coarse": "generator"}, PHASES[:1])
        other = toys(data)
    else:
        other = cascade(**change)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with raises(RunFolderError, "run-folder-checkpoint-other-spec", path="checkpoints") as caught:
        trainer(other, store.folder).run()
    assert "--fresh" in str(caught.value.hint)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())
    assert store.steps() == [8, 9]


def test_other_images_are_refused(store: CheckpointStore) -> None:
    images = np.random.default_rng(1).integers(0, 256, (COUNT, 3, 8, 8), dtype=np.uint8)
    data = ImageData(images, np.arange(COUNT) % 8, "train")
    with raises(RunFolderError, "run-folder-checkpoint-other-data", path="checkpoints"):
        trainer(cascade(), store.folder, data=data).run()


@pytest.mark.parametrize("change", ["shape", "name", "missing", "group"])
def test_another_architecture_is_refused(store: CheckpointStore, change: str) -> None:
    """As after an update of a plugin that changes its stage."""
    made = store.newest()
    weights, optimizer = dict(made.weights), dict(made.optimizer)
    name = next(iter(weights))
    if change == "shape":
        weights[name] = torch.ones(3)
    elif change == "group":
        optimizer = {"another": next(iter(optimizer.values()))}
    else:
        value = weights.pop(name)
        weights |= {"another": value} if change == "name" else {}
    other = Checkpoint(
        made.position, made.training_digest, weights, made.average, optimizer, made.data_digest
    )
    shutil.rmtree(store.folder)
    store.save(other)
    with raises(RunFolderError, "run-folder-checkpoint-other-architecture", path="checkpoints"):
        trainer(cascade(), store.folder).run()


def test_changed_bits_of_pairs_are_detected(tmp_path: Path) -> None:
    store = PairStore(tmp_path, "d")
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(3, 1, 2, 2, generator=generator)
    pairs = Pairs(noise, noise + 1, torch.tensor([0, 1, 2]))
    store.save(1, pairs)
    path = store.path(1)
    data = path.read_bytes()
    for bit in range(0, 8 * len(data), 5):
        flip(path, bit)
        try:
            loaded = store.load(1)
        except CheckpointError as error:
            assert error.code == "checkpoint-pairs-unreadable"
        else:
            # The name of the training or of the sha256 is changed, not the pairs.
            assert loaded is None or loaded.digest() == pairs.digest()
        path.write_bytes(data)
