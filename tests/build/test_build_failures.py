"""Builds that fail: each gives a clear error and loses nothing."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from build_cases import QUICK, TINY, same
from errors_help import raises
from filelock import FileLock
from PIL import Image
from safetensors.torch import load_file

from cascadezoo import Cascade
from cascadezoo.build.best_weights import BestWeights
from cascadezoo.build.build import build_cascade
from cascadezoo.errors import (
    CheckpointError,
    InputError,
    ResourceError,
    RunFolderError,
    RunLockedError,
    SpecError,
    TrainingError,
    WeightsUnavailableError,
)
from cascadezoo.spec import load_spec
from cascadezoo.train.checkpoint import CheckpointStore
from cascadezoo.train.events import read_events


def test_two_builds_into_one_folder(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with FileLock(run / ".lock"), raises(RunLockedError, "locked-build"):
        build_cascade(TINY, run, device="cpu")


def test_fresh_starts_over_and_touches_nothing_else(built: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(built, run)
    (run / "notes.txt").write_text("mine")
    build_cascade(TINY, run, device="cpu", settings=QUICK, seed=3, resume=False)
    assert not same(run / "model", built / "model")
    assert (run / "notes.txt").read_text() == "mine"


def test_a_folder_that_is_not_a_run_is_unchanged(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    for resume in (None, False):
        with raises(RunFolderError, "run-folder-not-a-run"):
            build_cascade(TINY, tmp_path, device="cpu", resume=resume)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_nothing_to_resume(tmp_path: Path) -> None:
    with raises(RunFolderError, "run-folder-nothing-to-resume"):
        build_cascade(TINY, tmp_path / "run", device="cpu", resume=True)


def test_a_file_instead_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with raises(RunFolderError, "run-folder-not-writable"):
        build_cascade(TINY, tmp_path / "run", device="cpu")


def test_missing_data(tmp_path: Path) -> None:
    settings = ['data={"source": "npz", "config": {"path": "nowhere.npz"}}']
    with raises(SpecError, "spec", problems={"data.config": "data-no-file"}):
        build_cascade(TINY, tmp_path / "run", device="cpu", settings=settings)


def test_labels_outside_the_range_of_the_spec(tmp_path: Path) -> None:
    with raises(SpecError, "spec", problems={"data.num_classes": "too-few-classes"}):
        build_cascade(TINY, tmp_path / "run", device="cpu", settings=["data.num_classes=3"])


@pytest.mark.parametrize("width", [10**9, 200_000])
def test_more_channels_than_memory(tmp_path: Path, width: int) -> None:
    with raises(ResourceError, "resources-training"):
        build_cascade(
            TINY, tmp_path / "run", device="cpu", settings=[f"stages.up.config.hidden={width}"]
        )
    assert not (tmp_path / "run").exists()


def test_missing_weights_are_reported_before_training(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    loss = 'training.losses=[{"stage": "refine", "kind": "lpips", "config": {"net": "alex"}}]'
    for setting in (loss, "evaluation.extractor=inception"):
        run = tmp_path / "run"
        with pytest.raises(WeightsUnavailableError):
            build_cascade(TINY, run, device="cpu", settings=[setting, "data.size=16"])
        assert not list(read_events(run / "events.jsonl"))
        shutil.rmtree(run)


@pytest.mark.slow
def test_an_extractor_that_no_metric_uses_is_not_loaded(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    settings = ['evaluation.metrics=["psnr"]', "evaluation.extractor=inception"]
    settings += ["evaluation.in_loop=null"]
    result = build_cascade(TINY, tmp_path / "run", device="cpu", settings=settings)
    assert any(figure.name.startswith("psnr") for figure in result.figures)


def test_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    settings = [*QUICK, "training.optimizer.lr=10", "training.clip_norm=null"]
    settings += ["training.optimizer.eps=1e-30", "training.phases.0.steps=400"]
    settings += ["training.optimizer.weight_decay=0", "training.ema=null"]
    with raises(TrainingError, "training-loss-not-finite"):
        build_cascade(TINY, tmp_path / "run", device="cpu", settings=settings)


def test_a_full_disk_keeps_the_former_checkpoint(tmp_path: Path) -> None:
    """The kernel rejects the write, as on a full disk."""
    run = tmp_path / "run"
    code = (
        "import json, resource, sys\n"
        "from cascadezoo.build.build import build_cascade\n"
        "from cascadezoo.errors import CheckpointError\n"
        "from cascadezoo.train import checkpoint\n"
        "save, done = checkpoint.CheckpointStore.save, []\n"
        "def limited(self, state):\n"
        "    if done: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "    done.append(1)\n"
        "    return save(self, state)\n"
        "checkpoint.CheckpointStore.save = limited\n"
        "try:\n"
        f"    build_cascade({TINY!r}, sys.argv[1], device='cpu')\n"
        "except CheckpointError as error:\n"
        "    print(json.dumps(error.to_dict()))\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, str(run)], capture_output=True, text=True, check=False
    )
    error = json.loads(process.stdout)
    assert error["code"] == "checkpoint-not-writable"
    assert "step 24" in error["message"]
    assert "step 16" in error["message"]
    store = CheckpointStore(run / "checkpoints")
    assert store.newest().position.global_step == 16
    assert [p.name for p in store.folder.iterdir()] == ["step-000000016-phase-1"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 20_000


def test_a_damaged_checkpoint_is_skipped(built: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(built, run)
    store = CheckpointStore(run / "checkpoints")
    older, newest = sorted(store.folder.iterdir())
    path = newest / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    assert store.newest().position.global_step == int(older.name.split("-")[1])
    (older / "state.json").write_text("{")
    with raises(CheckpointError, "checkpoint-none-whole"):
        store.newest()


def test_publishing_to_a_folder(tmp_path: Path, built: Path) -> None:
    run, dest = tmp_path / "run", tmp_path / "published"
    shutil.copytree(built, run)
    result = build_cascade(
        TINY, run, device="cpu", settings=[f'publish={{"to": {json.dumps(str(dest))}}}']
    )
    assert result.published == str(dest)
    assert same(dest, built / "model")


def test_an_invalid_destination_is_reported_before_training(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "a.tex").write_text("mine")
    for place in (
        str(tmp_path / "thesis"),
        "org/name@v1",
        str(tmp_path / "thesis" / "a.tex" / "x"),
    ):
        run = tmp_path / "run"
        with pytest.raises(InputError):
            build_cascade(
                TINY, run, device="cpu", settings=[f'publish={{"to": {json.dumps(place)}}}']
            )
        assert not list(read_events(run / "events.jsonl"))
        shutil.rmtree(run)


def test_in_loop_figures_are_kept(tmp_path: Path) -> None:
    in_loop = '{"every_epochs": 1, "samples": 20, "subset_size": 10, "subsets": 3}'
    build_cascade(
        TINY,
        tmp_path / "run",
        device="cpu",
        settings=[*QUICK, f"evaluation.in_loop={in_loop}"],
    )
    rows = [r for r in read_events(tmp_path / "run/events.jsonl") if r["event"] == "figure"]
    assert [(r["phase"], r["epoch"]) for r in rows] == [
        ("coarse", 1),
        ("coarse", 2),
        ("cascade", 1),
        ("joint", 1),
    ]
    assert all(r["figure"]["name"] == "kid.small.n20" for r in rows)
    course = json.loads((tmp_path / "run/model/metrics.json").read_text())["course"]
    assert len(course) == 4


def test_in_loop_figures_do_not_change_the_training(built: Path, tmp_path: Path) -> None:
    in_loop = '{"every_epochs": 1, "samples": 10, "subset_size": 5, "subsets": 2}'
    build_cascade(
        TINY, tmp_path / "run", device="cpu", settings=[f"evaluation.in_loop={in_loop}", *QUICK]
    )
    assert same(tmp_path / "run/model", built / "model")


@pytest.mark.slow
def test_the_best_weights_of_the_training_become_the_model(tmp_path: Path) -> None:
    in_loop = '{"every_epochs": 1, "samples": 20, "subset_size": 10, "subsets": 3, "keep": "best"'
    in_loop += ', "pictures": 4}'
    run = tmp_path / "run"
    settings = [*QUICK, f"evaluation.in_loop={in_loop}", "training.phases.joint.steps=24"]
    build_cascade(TINY, run, device="cpu", settings=settings)
    rows = [r for r in read_events(run / "events.jsonl") if r["event"] == "figure"]
    last = [row["figure"] for row in rows if row["phase"] == "joint"]
    assert len(last) == 3
    best = min(last, key=lambda figure: figure["value"])
    file = run / "best.safetensors"
    kept = BestWeights(file, load_spec(run / "spec.json").spec.training_digest()).figure()
    assert kept is not None
    assert kept.value == best["value"]
    tensors = load_file(file)
    for name, value in Cascade.from_pretrained(run / "model").stages.state_dict().items():
        assert torch.equal(value, tensors[name]), name
    assert BestWeights(file, "another training").figure() is None
    # Without them, the last weights would silently become the model.
    file.unlink()
    with raises(RunFolderError, "run-folder-best-gone"):
        build_cascade(TINY, run, device="cpu", settings=[*settings, "evaluation.samples=50"])
    assert sorted(path.name for path in (run / "pictures").iterdir()) == [
        "samples-0-coarse-000001.png",
        "samples-0-coarse-000002.png",
        "samples-1-cascade-000001.png",
        "samples-2-joint-000001.png",
        "samples-2-joint-000002.png",
        "samples-2-joint-000003.png",
    ]


def test_in_loop_figures_against_the_test_split_alone(tmp_path: Path) -> None:
    in_loop = '{"every_epochs": 9, "samples": 10, "subset_size": 5, "subsets": 2}'
    settings = [*QUICK, f"evaluation.in_loop={in_loop}", "evaluation.split=test"]
    build_cascade(TINY, tmp_path / "run", device="cpu", settings=settings)
    rows = [r for r in read_events(tmp_path / "run/events.jsonl") if r["event"] == "figure"]
    assert {r["figure"]["split"] for r in rows} == {"test"}


def test_a_training_with_missing_checkpoints_is_not_repeated(built: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(built, run)
    shutil.rmtree(run / "checkpoints")
    with raises(RunFolderError, "run-folder-checkpoint-gone"):
        build_cascade(TINY, run, device="cpu", settings=["evaluation.samples=50"])


def test_a_finished_build_publishes_again(built: Path, tmp_path: Path) -> None:
    run, dest = tmp_path / "run", tmp_path / "dest"
    shutil.copytree(built, run)
    settings = [f'publish={{"to": {json.dumps(str(dest))}}}']
    build_cascade(TINY, run, device="cpu", settings=settings)
    shutil.rmtree(dest)
    again = build_cascade(TINY, run, device="cpu", settings=settings)
    assert again.already_done
    assert same(dest, built / "model")


def test_events_of_a_build_killed_before_its_first_checkpoint_are_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(WeightsUnavailableError):
        build_cascade(TINY, run, device="cpu", settings=["evaluation.extractor=inception"])
    (run / "events.jsonl").write_text('{"event": "log", "step": 3}\n{"event": "log", "st')
    build_cascade(TINY, run, device="cpu", settings=QUICK)
    rows = list(read_events(run / "events.jsonl"))
    assert [row["event"] for row in rows[:2]] == ["compilation", "phase"]
    assert {"event": "log", "step": 3} not in rows


def test_the_display_is_closed_if_the_spec_is_invalid() -> None:
    class Closes:
        closed = False

        def close(self) -> None:
            self.closed = True

    progress = Closes()
    with pytest.raises(SpecError):
        build_cascade(TINY, device="cpu", settings=["seed=x"], progress=progress)
    assert progress.closed


@pytest.mark.parametrize(
    ("settings", "problems"),
    [
        # The small extractor has 256 features.
        (
            ['evaluation.metrics=["fid"]', "evaluation.samples=300", "data.config.count=64"],
            {"evaluation.metrics.0": "too-few-images"},
        ),
        (
            ['evaluation.metrics=["kid"]', "data.config.count=16"],
            {"evaluation.subset_size": "too-few-images"},
        ),
    ],
)
def test_figures_that_cannot_be_measured_are_found_first(
    tmp_path: Path, settings: list[str], problems: dict[str, str]
) -> None:
    with raises(SpecError, "spec", problems=problems):
        build_cascade(TINY, tmp_path / "run", device="cpu", settings=settings)
    assert not (tmp_path / "run").exists()


def test_numbers_that_only_the_data_tell_are_checked_before_training(tmp_path: Path) -> None:
    """The test images of a second folder are only counted when they are read."""
    for name, count in (("train", 24), ("test", 3)):
        (tmp_path / name).mkdir()
        for index in range(count):
            Image.new("RGB", (16, 16), (index, 0, 0)).save(tmp_path / name / f"{index}.png")
    config = {"path": str(tmp_path / "train"), "test_path": str(tmp_path / "test")}
    settings = [
        f'data={{"source": "folder", "config": {json.dumps(config)}}}',
        'evaluation.metrics=["kid"]',
        "evaluation.split=test",
        "evaluation.samples=20",
        "evaluation.subset_size=10",
    ]
    run = tmp_path / "run"
    with raises(SpecError, "spec", problems={"evaluation.subset_size": "too-few-images"}):
        build_cascade(TINY, run, device="cpu", settings=settings)
    assert not list(read_events(run / "events.jsonl"))


def test_weights_of_metrics_are_loaded_before_training(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    run = tmp_path / "run"
    with pytest.raises(WeightsUnavailableError):
        build_cascade(
            TINY,
            run,
            device="cpu",
            settings=['evaluation.metrics=["diversity:alex"]'],
        )
    assert not list(read_events(run / "events.jsonl"))
