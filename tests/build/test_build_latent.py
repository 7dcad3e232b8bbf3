"""Builds of latent cascades and of reflow: what is measured and kept between phases."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from build_cases import same, weights
from errors_help import raises

from cascadezoo.build.build import build_cascade
from cascadezoo.cascade.cascade import Cascade
from cascadezoo.errors import SpecError, StoppedError
from cascadezoo.spec import load_spec
from cascadezoo.train.checkpoint import CheckpointStore
from cascadezoo.train.events import read_events

SPEC: dict[str, Any] = {
    "name": "latent",
    "data": {"source": "shapes", "config": {"size": 16, "count": 64, "test_count": 16}},
    "stages": [
        {
            "name": "draw",
            "kind": "flow.v1",
            "config": {"channels": 16, "multipliers": [1], "attention": [], "steps": 2},
        },
        {
            "name": "decode",
            "kind": "autoencoder.v1",
            "config": {"latent_channels": 2, "channels": 8, "multipliers": [1, 2]},
        },
    ],
    "training": {
        "batch_size": 16,
        "losses": [],
        "log_steps": 2,
        "phases": [
            {"name": "autoencoder", "train": ["decode"], "steps": 4},
            {"name": "draw", "train": ["draw"], "steps": 3, "stages": {"draw": {"ema_decay": 0.5}}},
            {
                "name": "straight",
                "train": ["draw"],
                "epochs": 2,
                "reflow": {"pairs": 40, "steps": 3, "guidance": 1.0, "sampler": "heun"},
            },
        ],
    },
    "evaluation": {"metrics": []},
}


@pytest.fixture(scope="module")
def latent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("latent") / "run"
    build_cascade(SPEC, out, device="cpu")
    return out


def test_latents_have_a_deviation_of_one(latent: Path) -> None:
    cascade = Cascade.from_pretrained(latent)
    from cascadezoo.plugins.manager import get_registry

    entry = get_registry().datasets.get("shapes").entry
    data = entry.load()(load_spec(SPEC).data_config, "train")
    images = torch.from_numpy(data.images).float() / 127.5 - 1
    with torch.no_grad():
        latents, _ = cascade.targets(images)
    assert latents.shape == (64, 2, 8, 8)
    assert float(latents.std()) == pytest.approx(1.0, abs=1e-3)
    assert weights(latent / "model")["decode/scale"].item() != 1.0


def test_the_phases_and_what_is_left(latent: Path) -> None:
    rows = list(read_events(latent / "events.jsonl"))
    starts = {r["phase"]: r["steps_per_epoch"] for r in rows if r["event"] == "phase"}
    assert starts == {"autoencoder": 4, "draw": 4, "straight": 2}
    assert not list((latent / "checkpoints").glob("*pairs*"))
    newest = CheckpointStore(latent / "checkpoints").newest()
    assert newest is not None
    assert newest.position.global_step == 4 + 3 + 4


class StopIn:
    """Sends this process a signal at a step of a phase, or in the course of a task."""

    def __init__(self, phase: int | None = None, step: int = 0, task: str = "") -> None:
        self.wanted, self.task_wanted = (phase, step), task
        self.now, self.doing = -1, ""

    def phase(self, name: str, number: int, count: int, total: int, done: int) -> None:
        self.now = number

    def step(self, done: int, epoch: int, epochs: int) -> None:
        if (self.now, done) == self.wanted:
            os.kill(os.getpid(), signal.SIGTERM)

    def task(self, name: str, total: int) -> None:
        self.doing = name

    def advance(self, done: int) -> None:
        if self.task_wanted and self.task_wanted in self.doing:
            os.kill(os.getpid(), signal.SIGTERM)

    def __getattr__(self, name: str) -> Any:
        return lambda *args: None


@pytest.mark.parametrize(
    ("stop", "place"),
    [
        (
            StopIn(task="decode goes through 64 images"),
            {"code": "interrupted-doing", "doing": "ending phase 'autoencoder'"},
        ),
        (
            StopIn(task="draw makes 40 pairs"),
            {"code": "interrupted-doing", "doing": "making the pairs of phase 'straight'"},
        ),
        (StopIn(phase=2, step=3), {"code": "interrupted-training", "phase": "straight", "step": 3}),
        pytest.param(
            StopIn(phase=0, step=4),
            {"code": "interrupted-training", "phase": "autoencoder", "step": 4},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            StopIn(phase=2, step=4),
            {"code": "interrupted-training", "phase": "straight", "step": 4},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_stopped_build_goes_on_to_the_same_weights(
    latent: Path, tmp_path: Path, stop: StopIn, place: dict[str, Any]
) -> None:
    run = tmp_path / "run"
    with raises(StoppedError, reason="SIGTERM", **place):
        build_cascade(SPEC, run, device="cpu", progress=stop)
    build_cascade(run / "spec.json", run, device="cpu")
    assert same(run / "model", latent / "model")


def test_what_cannot_be_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for setting, code in (
        ("training.phases.straight.reflow.sampler=ddim", "literal-error"),
        ("training.phases.straight.reflow.steps=0", "greater-than-equal"),
        ('training.phases.straight.train=["decode"]', "reflow-others"),
        ('training.phases.0.train=["draw"]', "latents-untrained"),
        ("stages.draw.kind=unet-diffusion.v1", "reflow-kind"),
    ):
        with pytest.raises(SpecError) as caught:
            build_cascade(SPEC, run, device="cpu", settings=[setting])
        assert code in {problem.code for problem in caught.value.problems}
    assert not run.exists()
