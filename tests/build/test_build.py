"""The main job on a small spec: its files, and how a stopped build resumes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from build_cases import QUICK, TINY, same
from errors_help import raises
from PIL import Image

from cascadezoo.build.build import build_cascade
from cascadezoo.cascade.cascade import Cascade
from cascadezoo.errors import (
    RunFolderError,
    StoppedError,
)
from cascadezoo.spec import load_spec
from cascadezoo.train.checkpoint import CheckpointStore
from cascadezoo.train.events import read_events


def test_the_run_folder(built: Path) -> None:
    names = {p.relative_to(built).as_posix() for p in built.rglob("*") if p.is_file()}
    model = {
        "model/README.md",
        "model/config.json",
        "model/metrics.json",
        "model/samples.png",
        *(f"model/stages/{n}/model.safetensors" for n in ("coarse", "up", "refine")),
    }
    assert model | {"spec.json", "run.json", "events.jsonl", "curves.png"} <= names
    assert {n for n in names if n.startswith("model/")} == model
    spec = load_spec(TINY).spec
    assert json.loads((built / "spec.json").read_text()) == spec.to_dict()
    assert load_spec(built).spec == spec


def test_the_model_folder_is_consistent(built: Path) -> None:
    import hashlib

    config = json.loads((built / "model/config.json").read_text())
    for name, record in config["files"].items():
        data = (built / "model" / name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == record["sha256"]
        assert len(data) == record["size"]
    assert set(config["files"]) == {
        p.relative_to(built / "model").as_posix()
        for p in (built / "model").rglob("*")
        if p.is_file() and p.name != "config.json"
    }
    assert config["requires"] == ["cascadezoo>=0.1.0"]


def test_figures_record_how_they_were_measured(built: Path) -> None:
    metrics = json.loads((built / "model/metrics.json").read_text())
    names = [figure["name"] for figure in metrics["figures"]]
    assert names == ["kid.small.n64", "images-per-second.n64"]
    assert metrics["figures"][0]["data_digest"] == metrics["training"]["data_digest"]
    card = (built / "model/README.md").read_text()
    for figure in metrics["figures"]:
        assert f"`{figure['name']}`" in card
    assert "not Inception" in card
    assert metrics["training"]["seconds_per_epoch"].keys() == {"coarse", "cascade", "joint"}


def test_the_hub_can_read_the_card(built: Path) -> None:
    from huggingface_hub import ModelCard

    card = ModelCard.load(built / "model/README.md")
    assert card.data.library_name == "cascadezoo"
    assert card.data.license == "apache-2.0"
    (result,) = card.data.eval_results
    assert result.metric_name == "kid.small.n64"
    assert result.metric_args["n"] == 64


def test_pictures(built: Path) -> None:
    for name in ("model/samples.png", "curves.png"):
        with Image.open(built / name) as picture:
            assert min(picture.size) > 200
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 50


def test_events(built: Path) -> None:
    rows = list(read_events(built / "events.jsonl"))
    marks = [(r["phase"], r["state"]) for r in rows if r["event"] == "phase"]
    assert marks == [(p, s) for p in ("coarse", "cascade", "joint") for s in ("start", "end")]
    logs = [r for r in rows if r["event"] == "log"]
    assert {k for r in logs for k in r["losses"]} == {"coarse.mse", "up.mse", "refine.mse"}
    forcing = [r["teacher_forcing"] for r in logs if r["phase"] == "cascade"]
    assert forcing == sorted(forcing, reverse=True)
    assert forcing[-1] == pytest.approx(0.1)
    assert all(r["seconds"] > 0 for r in rows if r["event"] == "epoch")


def test_training_lowers_the_loss(built: Path) -> None:
    rows = [r for r in read_events(built / "events.jsonl") if r["event"] == "log"]
    coarse = [r["losses"]["coarse.mse"] for r in rows if r["phase"] == "coarse"]
    assert coarse[-1] < 0.9 * coarse[0]


def test_the_model_loads_and_samples(built: Path) -> None:
    cascade = Cascade.from_pretrained(built)
    images = cascade.sample(4, seed=1)
    assert images.shape == (4, 3, 16, 16)
    assert images.dtype == torch.float32
    assert float(images.abs().max()) <= 1.0
    assert torch.equal(images, Cascade.from_pretrained(built / "model").sample(4, seed=1))


def test_building_again_does_nothing(built: Path) -> None:
    before = (built / "model/config.json").stat().st_mtime_ns
    result = build_cascade(TINY, built, device="cpu")
    assert result.already_done
    assert [f.name for f in result.figures] == ["kid.small.n64", "images-per-second.n64"]
    assert (built / "model/config.json").stat().st_mtime_ns == before


def test_another_evaluation_does_not_train_again(built: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(built, run)
    events = (run / "events.jsonl").read_text()
    result = build_cascade(
        TINY, run, device="cpu", settings=["evaluation.samples=40", "evaluation.subset_size=20"]
    )
    assert result.figures[0].name == "kid.small.n40"
    assert (run / "events.jsonl").read_text() == events
    assert same(run / "model", built / "model")


def test_another_spec_in_the_folder_is_refused(built: Path) -> None:
    before = sorted(p.stat().st_mtime_ns for p in built.rglob("*"))
    with raises(RunFolderError, "run-folder-other-spec") as caught:
        build_cascade(TINY, built, device="cpu", seed=5)
    assert "--fresh" in str(caught.value.hint)
    assert sorted(p.stat().st_mtime_ns for p in built.rglob("*")) == before


def test_the_weights_depend_on_the_seed_alone(built: Path, tmp_path: Path) -> None:
    build_cascade(TINY, tmp_path / "a", device="cpu", settings=QUICK)
    assert same(tmp_path / "a/model", built / "model")
    build_cascade(TINY, tmp_path / "b", device="cpu", settings=QUICK, seed=1)
    assert not same(tmp_path / "b/model", built / "model")


class StopAt:
    """Sends this process a signal at a step of a phase."""

    def __init__(self, phase: int, step: int, number: signal.Signals) -> None:
        self.stop_at, self.number, self.now = (phase, step), number, 0

    def phase(self, name: str, number: int, count: int, total: int, done: int) -> None:
        self.now = number

    def step(self, done: int, epoch: int, epochs: int) -> None:
        if (self.now, done) == self.stop_at:
            os.kill(os.getpid(), self.number)

    def __getattr__(self, name: str) -> Any:
        return lambda *args: None


@pytest.mark.parametrize(
    ("phase", "step", "number"),
    [
        (0, 1, signal.SIGINT),
        (0, 7, signal.SIGTERM),
        (0, 16, signal.SIGTERM),
        (1, 3, signal.SIGINT),
        (2, 8, signal.SIGTERM),
    ],
)
def test_a_stopped_build_resumes_to_the_same_weights(
    built: Path, tmp_path: Path, phase: int, step: int, number: signal.Signals
) -> None:
    run = tmp_path / "run"
    with raises(StoppedError, "interrupted-training", reason=number.name) as caught:
        build_cascade(TINY, run, device="cpu", settings=QUICK, progress=StopAt(phase, step, number))
    assert caught.value.exit_code == 130
    assert "cascadezoo build" in str(caught.value.hint)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    build_cascade(run / "spec.json", run, device="cpu")
    assert same(run / "model", built / "model")
    logged = [r["step"] for r in read_events(run / "events.jsonl") if r["event"] == "log"]
    assert logged == sorted(set(logged))


def start(run: Path, *settings: str) -> subprocess.Popen[bytes]:
    changes = [part for setting in settings for part in ("--set", setting)]
    options = ("-o", str(run), "--quiet", "--device", "cpu")
    return subprocess.Popen(
        [sys.executable, "-m", "cascadezoo", "build", TINY, *options, *changes],
        stderr=subprocess.PIPE,
    )


def wait_for(run: Path, step: int, process: subprocess.Popen[bytes]) -> None:
    limit = time.monotonic() + 120
    while time.monotonic() < limit and process.poll() is None:
        if any(r.get("step", 0) >= step for r in read_events(run / "events.jsonl")):
            return
        time.sleep(0.005)
    pytest.fail(f"step {step} was not reached: {process.stderr.read().decode()}")


@pytest.mark.slow
@pytest.mark.parametrize("step", [3, 11, 16, 21, 27])
def test_a_killed_build_resumes_to_the_same_weights(built: Path, tmp_path: Path, step: int) -> None:
    run = tmp_path / "run"
    settings = (*QUICK, "training.checkpoint_seconds=0", "training.log_steps=1")
    process = start(run, *settings)
    wait_for(run, step, process)
    process.kill()
    process.communicate()
    build_cascade(TINY, run, device="cpu", settings=settings)
    assert same(run / "model", built / "model")


@pytest.mark.slow
def test_sigterm_on_the_command_line(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(run, *QUICK, "training.phases.0.steps=100000", "training.log_steps=1")
    wait_for(run, 2, process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"cascadezoo build" in err
    assert CheckpointStore(run / "checkpoints").newest() is not None
