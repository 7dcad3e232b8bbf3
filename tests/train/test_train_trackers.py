"""The built-in trackers with the real packages: what they record, and how they resume."""

from __future__ import annotations

import json
import os
import signal
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from errors_help import raises

from cascadezoo import Callback, build_cascade
from cascadezoo.errors import InputError, SpecError, StoppedError
from cascadezoo.plugins.manager import PluginHost, get_registry
from cascadezoo.plugins.registry import CallbackEntry, Origin, Registered
from cascadezoo.spec import load_spec, resolve
from cascadezoo.spec.configs import CallbackConfig
from cascadezoo.train.callbacks import (
    FigureEvent,
    ModelEvent,
    PhaseEvent,
    StepEvent,
    TrainingRun,
    load_callbacks,
)
from cascadezoo.train.engine import make_accelerator
from cascadezoo.train.tracker_configs import TensorBoardConfig
from cascadezoo.train.trackers import TensorBoardTracker, TrackioTracker, WandbTracker, _sheet

# Packages of trackers warn about other packages.
pytestmark = pytest.mark.filterwarnings("default")

rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 256, (48, 8, 8, 1), dtype=np.uint8)
SPEC: dict[str, Any] = {
    "name": "tracked",
    "stages": [
        {
            "name": "coarse",
            "kind": "flow",
            "config": {"channels": 8, "multipliers": [1, 1], "steps": 2},
        }
    ],
    "training": {
        "batch_size": 16,
        "log_steps": 1,
        "precision": "fp32",
        "phases": [
            {"name": "one", "train": ["coarse"], "steps": 3},
            {"name": "two", "train": ["coarse"], "steps": 2},
        ],
    },
    "evaluation": {"metrics": []},
}
LOSS = "loss/coarse.velocity"


class Stop(Callback):
    """Interrupts the build after step 4, as Ctrl-C does."""

    def on_step(self, event: StepEvent) -> None:
        if event.step == 4:
            os.kill(os.getpid(), signal.SIGINT)


def needs(name: str) -> None:
    if find_spec(name) is None:
        pytest.skip(f"the package {name} is not installed")


def build_twice(out: Path, *trackers: Any) -> None:
    """A build that is stopped and resumed, with trackers in its spec."""
    spec = {**SPEC, "training": {**SPEC["training"], "callbacks": list(trackers)}}
    with raises(StoppedError, "interrupted-training"):
        build_cascade(spec, out, data=IMAGES, device="cpu", callbacks=[Stop()])
    build_cascade(spec, out, data=IMAGES, device="cpu")


@pytest.mark.slow
def test_tensorboard(tmp_path: Path) -> None:
    needs("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tmp_path / "run"
    build_twice(out, {"kind": "tensorboard", "config": {"samples": 4}})
    folder = out / "trackers" / "tensorboard"
    assert len(list(folder.glob("events.out.tfevents.*"))) == 2
    log = EventAccumulator(str(folder))
    log.Reload()
    tags = log.Tags()
    assert {LOSS, "lr/coarse", "epoch/coarse.velocity", "images_per_second", "phase"} <= {
        *tags["scalars"]
    }
    assert [row.step for row in log.Scalars(LOSS)] == [1, 2, 3, 4, 5]
    logged = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    losses = [row["losses"]["coarse.velocity"] for row in logged if row["event"] == "log"]
    assert [row.value for row in log.Scalars(LOSS)] == pytest.approx(losses)
    (speed,) = log.Scalars("figure/images-per-second.n64")
    assert speed.step == 5
    assert [row.step for row in log.Images("samples/coarse")] == [3, 5]
    texts = {
        tag: log.Tensors(tag)[-1].tensor_proto.string_val[0].decode() for tag in tags["tensors"]
    }
    assert texts["card/text_summary"] == (out / "model" / "README.md").read_text()
    assert json.loads(texts["spec/text_summary"].strip("`json\n")) == load_spec(out).spec.to_dict()

    # Starting over begins a new record.
    build_cascade(
        {**SPEC, "training": {**SPEC["training"], "callbacks": [{"kind": "tensorboard"}]}},
        out,
        data=IMAGES,
        device="cpu",
        resume=False,
    )
    assert len(list(folder.glob("events.out.tfevents.*"))) == 1


def test_an_object_begins_each_build_anew(tmp_path: Path) -> None:
    needs("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    make_accelerator(torch.device("cpu"), "fp32")
    tracker = TensorBoardTracker(samples=0)
    tags = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        tracker.begin(TrainingRun(name, {}, folder))
        if name == "first":
            tracker.on_phase(PhaseEvent("one", 0, "start", 0, 3))
            tracker.on_figure(FigureEvent({"name": "kid.small.n32", "value": 0.1}))
        tracker.on_model(ModelEvent(folder, "card", {}, 3))
        tracker.close()
        log = EventAccumulator(str(folder / "trackers" / "tensorboard"))
        log.Reload()
        tags.append(log.Tags()["scalars"])
    assert "figure/kid.small.n32" in tags[0]
    assert tags[1] == []


@pytest.mark.slow
def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("wandb")
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("WANDB__SERVICE_WAIT", "300")
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "300")
    out = tmp_path / "run"
    build_twice(out, {"kind": "wandb", "config": {"mode": "offline", "samples": 4}})
    runs = sorted((out / "trackers" / "wandb").glob("offline-run-*"))
    number = json.loads((out / "trackers" / "wandb.json").read_text())["id"]
    assert len(runs) == 2
    assert all(run.name.endswith(number) for run in runs)
    whole = b"".join(path.read_bytes() for run in runs for path in run.glob("*.wandb"))
    for tag in (LOSS, "lr/coarse", "figure/images-per-second.n64", "samples/coarse", "card"):
        assert tag.encode() in whole, tag
    pictures = [p for run in runs for p in run.glob("files/media/images/samples/*.png")]
    assert len(pictures) == 2
    (page,) = [p for run in runs for p in run.glob("files/media/html/card_*.html")]
    assert "<pre>---\n" in page.read_text()


@pytest.mark.slow
def test_trackio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # It reads the variable when it is imported.
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    needs("trackio")
    out = tmp_path / "run"
    build_twice(out, {"kind": "trackio", "config": {"samples": 4}})
    number = json.loads((out / "trackers" / "trackio.json").read_text())["id"]
    from trackio.sqlite_storage import SQLiteStorage

    rows = SQLiteStorage.get_logs("cascadezoo", f"tracked-{number[:8]}")
    assert {row["step"] for row in rows if LOSS in row} == {1, 2, 3, 4, 5}
    assert any("samples/coarse" in row for row in rows)
    assert any("card" in row for row in rows)


class AbsentConfig(CallbackConfig):
    packages = {"cascadezoo-no-such-package": "cascadezoo[nothing]"}


def test_a_missing_package_is_found_before_the_training() -> None:
    own = get_registry()
    entry = CallbackEntry(
        name="absent", summary="s", config=f"{__name__}:AbsentConfig", impl=f"{__name__}:Stop"
    )
    host = PluginHost()
    host.registry.callbacks.rows["absent"] = Registered(entry, Origin("other", "1.0", "other"))
    spec = {
        **SPEC,
        "data": {"source": "shapes"},
        "training": {**SPEC["training"], "callbacks": [{"kind": "absent"}]},
    }
    place = "training.callbacks.0.kind"
    with raises(SpecError, "spec", problems={place: "package-missing"}) as caught:
        resolve(spec, registry=host.registry)
    (problem,) = [p for p in caught.value.problems if p.code == "package-missing"]
    assert problem.hint == "pip install 'cascadezoo[nothing]'"
    assert "absent" not in own.callbacks.rows
    # The spec of a trained model loads without the trackers of its training.
    whole = load_spec({**SPEC, "data": {"source": "shapes"}}).spec.to_dict()
    whole["training"]["callbacks"] = [{"kind": "absent", "config": {}}]
    assert resolve(whole, registry=host.registry, for_training=False)


def test_an_object_without_its_package() -> None:
    class Absent(TensorBoardTracker):
        class Config(TensorBoardConfig):
            packages = {"cascadezoo-no-such-package": "cascadezoo[nothing]"}

    with raises(InputError, "input-package-missing") as caught:
        Absent()
    assert caught.value.hint == "pip install 'cascadezoo[nothing]'"


@pytest.mark.parametrize(
    ("tracker", "package"),
    [(TensorBoardTracker, "tensorboard"), (WandbTracker, "wandb"), (TrackioTracker, "trackio")],
)
def test_settings_of_objects(tracker: Any, package: str) -> None:
    with raises(SpecError, "spec", problems={"samples": "less-than-equal"}):
        tracker(samples=1000)
    needs(package)
    assert tracker(samples=3).samples == 3


def test_only_the_callbacks_that_were_started_are_closed(tmp_path: Path) -> None:
    needs("tensorboard")
    run = TrainingRun("tracked", {}, tmp_path)
    callbacks = load_callbacks((), run, [TensorBoardTracker()])
    assert callbacks.samples == 16
    callbacks.close()
    assert not (tmp_path / "trackers" / "tensorboard").exists()  # nothing was recorded


def test_a_sheet_of_images() -> None:
    images = np.arange(5, dtype=np.uint8)[:, None, None, None].repeat(2, 1).repeat(3, 2)
    sheet = _sheet(images)
    assert sheet.shape == (2 * 3 - 1, 3 * 4 - 1, 1)
    assert [sheet[0, 4, 0], sheet[3, 0, 0], sheet[2, 0, 0], sheet[3, 8, 0]] == [1, 3, 255, 255]
