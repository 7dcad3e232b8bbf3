"""Builds on images that a program passes: what is saved, how they resume, what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from build_cases import same
from errors_help import raises

from cascadezoo import Callback, build_cascade, check_model, evaluate_model
from cascadezoo.cards.check_card import card_faults
from cascadezoo.configs import ShapesConfig
from cascadezoo.errors import DataError, InputError, RunFolderError, SpecError, StoppedError
from cascadezoo.model_folder.layout import read_config
from cascadezoo.train.callbacks import PhaseEvent, StepEvent

rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 256, (48, 8, 8, 3), dtype=np.uint8)
LABELS = np.arange(48) % 4
SPEC: dict[str, Any] = {
    "name": "passed",
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
    "evaluation": {
        "metrics": ["kid"],
        "extractor": "small",
        "samples": 32,
        "subset_size": 16,
        "subsets": 3,
    },
}


class Pictures(torch.utils.data.Dataset[Any]):
    classes = ["ant", "bee", "cat", "dog"]

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        return torch.from_numpy(IMAGES[row]).permute(2, 0, 1).float() / 255, int(LABELS[row])


class Stop(Callback):
    """Interrupts the build at its second step, as Ctrl-C does."""

    def on_step(self, event: StepEvent) -> None:
        if event.step == 2:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("passed") / "run"
    build_cascade(SPEC, out, data=(IMAGES, LABELS), device="cpu")
    return out


@pytest.mark.slow
def test_the_model_says_that_nobody_else_has_the_images(run: Path) -> None:
    config = read_config(run / "model")
    data = config.spec["data"]
    assert data["source"] == "python"
    assert data["config"]["train"]["count"] == 48
    card = (run / "model" / "README.md").read_text()
    assert data["config"]["train"]["digest"] in card
    assert 'check_model("path/to/passed", data=...)' in card
    assert "cascadezoo evaluate" not in card
    assert "`build_cascade(spec, data=...)`, with the same images, repeats" in card
    assert card_faults(card) == []


@pytest.mark.slow
def test_it_is_measured_only_with_its_images(run: Path) -> None:
    found = evaluate_model(run, ["kid"], data=Pictures(), device="cpu")
    assert found.ok
    report = check_model(run, data=(IMAGES, LABELS), device="cpu")
    assert report.ok
    without = evaluate_model(run, ["kid"], device="cpu")
    assert [p.error.code for p in without.problems] == ["data-given-in-python"]
    with raises(DataError, "data-other-images"):
        evaluate_model(run, ["kid"], data=(IMAGES[::-1], LABELS), device="cpu")
    # Images of a split that the build did not have.
    other = evaluate_model(run, ["kid"], data=(IMAGES[::-1], LABELS), split="test", device="cpu")
    assert other.figures[0].split == "test"
    with raises(InputError, "input-save-other-data"):
        evaluate_model(run, ["kid"], data=ShapesConfig(size=8), save=True, device="cpu")


@pytest.mark.slow
def test_a_stopped_build_resumes_with_the_same_images_only(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with raises(StoppedError, "interrupted-training") as caught:
        build_cascade(SPEC, out, data=(IMAGES, LABELS), device="cpu", callbacks=[Stop()])
    assert "data=..." in str(caught.value.hint)
    with raises(RunFolderError, "run-folder-other-images"):
        build_cascade(SPEC, out, data=(IMAGES[::-1], LABELS), device="cpu")
    with raises(RunFolderError, "run-folder-other-images") as refused:
        both = {"train": (IMAGES, LABELS), "test": (IMAGES, LABELS)}
        build_cascade(SPEC, out, data=both, device="cpu")
    assert "on train images, but train and test images are given" in refused.value.what
    with raises(DataError, "data-given-in-python"):
        build_cascade(out / "spec.json", out, device="cpu")
    # Another container with the same images, and the spec of the run.
    build_cascade(out / "spec.json", out, data=Pictures(), device="cpu")
    assert same(out / "model", run / "model")


@pytest.mark.slow
def test_a_finished_build_is_found_without_its_images(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(run, out)
    assert build_cascade(out / "spec.json", out, device="cpu").already_done


def test_what_is_missing_is_found_before_the_training(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with raises(SpecError, "spec", problems={"evaluation.subset_size": "too-few-images"}):
        build_cascade(SPEC, out, data=(IMAGES[:8], LABELS[:8]), device="cpu")
    with raises(InputError, "input-callback-type"):
        build_cascade(SPEC, out, data=IMAGES, callbacks=[Stop])  # type: ignore[list-item]
    with raises(InputError, "input-callback-type"):
        build_cascade(SPEC, out, data=IMAGES, callbacks=[print])  # type: ignore[list-item]
    for single in (Stop(), Stop, None):
        with raises(InputError, "input-callback-type") as caught:
            build_cascade(SPEC, out, data=IMAGES, callbacks=single)  # type: ignore[arg-type]
        assert "a list" in str(caught.value)
    assert not out.exists()


class Recorder(Callback):
    samples = 2

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[str, Any]] = []

    def begin(self, run: Any) -> None:
        super().begin(run)
        self.rows.append(("begin", run.folder.name))

    def on_phase(self, event: PhaseEvent) -> None:
        self.rows.append((event.state, event.phase))

    def on_samples(self, event: Any) -> None:
        images = {name: (rows.shape, rows.dtype.name) for name, rows in event.images.items()}
        self.rows.append(("samples", (event.step, images)))

    def on_model(self, event: Any) -> None:
        assert event.card == (event.folder / "README.md").read_text()
        self.rows.append(("model", (event.step, [f["name"] for f in event.metrics["figures"]])))

    def close(self) -> None:
        self.rows.append(("close", None))


@pytest.mark.slow
def test_objects_receive_the_events_and_change_nothing(run: Path, tmp_path: Path) -> None:
    first, second = Recorder(), Recorder()
    out = tmp_path / "run"
    build_cascade(SPEC, out, data=(IMAGES, LABELS), device="cpu", callbacks=[first, second])
    shown = {"coarse": ((2, 8, 8, 3), "uint8")}
    assert first.rows == [
        ("begin", "run"),
        ("start", "one"),
        ("samples", (3, shown)),
        ("end", "one"),
        ("start", "two"),
        ("samples", (5, shown)),
        ("end", "two"),
        ("model", (5, ["kid.small.n32", "images-per-second.n32"])),
        ("close", None),
    ]
    assert second.rows == first.rows
    assert same(out / "model", run / "model")
