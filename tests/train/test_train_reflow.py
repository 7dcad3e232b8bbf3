"""Reflow: the generator's own pairs, made once and used for training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from errors_help import raises
from toys import toy_spec, toys
from train_cases import StopAfter, equal, trainer

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.errors import CheckpointError, StoppedError
from cascadezoo.train.checkpoint import CheckpointStore
from cascadezoo.train.engine import make_accelerator
from cascadezoo.train.events import EventLog, read_events
from cascadezoo.train.progress import QuietProgress
from cascadezoo.train.reflow import PairLoader, Pairs, PairStore, make_pairs
from cascadezoo.util.rng import ImageDraw

PAIRS = 28  # three batches of 8, and 4 pairs beyond


def cascade(**data: Any) -> Cascade:
    phases = [
        {"name": "coarse", "train": ["draw"], "steps": 4},
        {
            "name": "straight",
            "train": ["draw"],
            "epochs": 2,
            "reflow": {"pairs": PAIRS, "steps": 7, "sampler": "two"},
        },
        {"name": "rest", "train": ["sharpen"], "steps": 2},
    ]
    spec = toy_spec({"draw": "reflow", "sharpen": "refiner"}, phases)
    spec["training"]["optimizer"] = {"lr": 0.05}
    spec["data"].update(data)
    return toys(spec)


def pairs_of(cascade: Cascade, batch_size: int = 8) -> Pairs:
    phase = cascade.spec.training.phases[1]
    device = make_accelerator(torch.device("cpu"), "fp32")
    quiet = QuietProgress()
    return make_pairs(cascade, phase, phase.reflow, device, batch_size=batch_size, progress=quiet)


def test_pairs_are_noise_and_its_generated_images() -> None:
    toy = cascade()
    pairs = pairs_of(toy)
    assert pairs.noise.shape == pairs.images.shape == (PAIRS, 3, 8, 8)
    assert pairs.labels.tolist() == [i % 8 for i in range(PAIRS)]
    naive = 0.5 * pairs.noise + 0.1 * pairs.labels.float()[:, None, None, None]
    assert torch.equal(pairs.images, naive)
    requests = toy.stage("draw").requests
    assert {(r.steps, r.sampler, r.guidance) for r in requests} == {(7, "two", None)}
    assert [r.count for r in requests] == [8, 8, 8, 4]
    assert abs(float(pairs.noise.std()) - 1) < 0.05
    # Keyed by the phase and the index of the pair, independent of the batches.
    assert torch.equal(
        pairs.noise[5], ImageDraw(0, "straight/draw/pairs", 5, 1).randn(1, 3, 8, 8)[0]
    )
    assert torch.equal(pairs_of(cascade(), batch_size=5).images, pairs.images)
    assert pairs.noise.unique(dim=0).shape[0] == PAIRS


def test_pairs_without_labels() -> None:
    assert pairs_of(cascade(num_classes=0)).labels is None


def test_an_epoch_has_each_pair_at_most_once_in_full_batches() -> None:
    numbers = torch.arange(PAIRS, dtype=torch.float32)[:, None, None, None]
    pairs = Pairs(numbers, numbers + 100, torch.arange(PAIRS))
    loader = PairLoader(pairs, batch_size=8, key=(0, "x"))
    assert loader.steps_per_epoch == 3
    epochs = []
    for epoch in range(2):
        rows = []
        for index in range(3):
            noise, images, labels = loader.batch(epoch, index)
            assert torch.equal(images, noise + 100)
            assert torch.equal(labels.float(), noise.flatten())
            rows += labels.tolist()
        assert len(set(rows)) == 24
        epochs.append(rows)
    assert epochs[0] != epochs[1]
    # Any batch can be repeated in any order, and processes share it.
    assert loader.batch(0, 2)[2].tolist() == epochs[0][16:]
    halves = [
        PairLoader(pairs, batch_size=8, key=(0, "x"), rank=r, world=2).batch(0, 1)[2].tolist()
        for r in range(2)
    ]
    assert halves[0] + halves[1] == epochs[0][8:16]
    other = PairLoader(pairs, batch_size=8, key=(0, "y")).batch(0, 0)[2].tolist()
    assert other != epochs[0][:8]


def test_only_the_reflow_phase_trains_on_pairs(tmp_path: Path) -> None:
    toy = cascade()
    before = cascade()
    log = EventLog(tmp_path / "events.jsonl")
    trainer(toy, events=log).run()
    log.close()
    batches = toy.stage("draw").batches
    assert len(batches) == 4 + 6
    assert all(noise is None for _, noise, _ in batches[:4])
    shift = 0.1
    for target, noise, labels in batches[4:]:
        # Each target is linear in its noise; the slope is the initial weight of the phase.
        assert noise is not None
        rest = target - shift * labels.float()[:, None, None, None]
        slope = rest / noise
        assert float(slope.std()) < 1e-3
    assert float(slope.mean()) != pytest.approx(before.stage("draw").scale.item(), abs=1e-3)
    starts = {r["phase"]: r for r in read_events(log.path) if r["event"] == "phase"}
    assert starts["straight"]["steps_per_epoch"] == 3
    assert starts["coarse"]["steps_per_epoch"] == 8
    (first, second) = (r for r in read_events(log.path) if r["event"] == "epoch" and r["whole"])
    assert (first["phase"], first["epoch"], second["epoch"]) == ("straight", 1, 2)


@pytest.fixture(scope="module")
def whole() -> Cascade:
    made = cascade()
    trainer(made).run()
    return made


slow = pytest.mark.slow


@pytest.mark.parametrize(
    "number", [*(pytest.param(n, marks=slow) for n in (4, 5, 8, 11, 15)), 7, 9, 14]
)
def test_a_stop_at_any_time_resumes_to_the_same_weights(
    whole: Cascade, tmp_path: Path, number: int
) -> None:
    """Four steps, four blocks of pairs, six steps on them, two steps: each checks once for a stop."""
    run = tmp_path / "run"
    with pytest.raises(StoppedError) as caught:
        trainer(cascade(), run, stop=StopAfter(number)).run()
    kept = [p.name for p in run.glob("pairs-*")]
    if 4 < number <= 8:
        assert caught.value.code == "interrupted-doing"
        assert "'straight'" in caught.value.fields["doing"]
    assert kept == (["pairs-1.safetensors"] if 8 < number <= 14 else [])
    again = cascade()
    trainer(again, run).run()
    assert equal(again, whole)
    if kept:
        assert again.stage("draw").requests == []
    assert not [p for p in run.iterdir() if "pairs" in p.name]


@pytest.mark.slow
def test_missing_pairs_are_not_made_again_with_other_weights(tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        trainer(cascade(), tmp_path, stop=StopAfter(10)).run()
    path = tmp_path / "pairs-1.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:100])
    with raises(
        CheckpointError, "checkpoint-pairs-unreadable", path="pairs-1.safetensors"
    ) as caught:
        trainer(cascade(), tmp_path).run()
    assert "--fresh" in str(caught.value.hint)
    path.unlink()
    with raises(CheckpointError, "checkpoint-pairs-gone"):
        trainer(cascade(), tmp_path).run()


def test_the_store_is_exact_and_belongs_to_its_training(tmp_path: Path) -> None:
    pairs = pairs_of(cascade())
    store = PairStore(tmp_path, "a")
    assert store.load(1) is None
    (tmp_path / ".pairs-1.safetensors.1.tmp").write_bytes(b"half")
    store.save(1, pairs)
    store.save(2, Pairs(pairs.noise, pairs.images, None))
    loaded = store.load(1)
    assert all(
        torch.equal(getattr(loaded, k), getattr(pairs, k)) for k in ("noise", "images", "labels")
    )
    assert store.load(2).labels is None
    assert PairStore(tmp_path, "b").load(1) is None
    store.clear(before=2)
    assert [p.name for p in tmp_path.iterdir()] == ["pairs-2.safetensors"]


def test_a_folder_that_is_not_writable(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with raises(CheckpointError, "checkpoint-pairs-not-writable", count=28):
        PairStore(tmp_path / "file", "a").save(1, pairs_of(cascade()))


def test_a_checkpoint_of_a_phase_with_pairs(tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        trainer(cascade(), tmp_path, stop=StopAfter(11)).run()
    newest = CheckpointStore(tmp_path).newest()
    assert (newest.position.phase, newest.position.step) == (1, 3)
