"""Trainings that run in several processes, and what they return."""

from __future__ import annotations

import importlib
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.data.base import ImageData
from cascadezoo.data.loader import DeviceLoader
from cascadezoo.errors import SampleError
from cascadezoo.evaluate.shared_sampling import SharedSampling
from cascadezoo.spec import load_spec
from cascadezoo.train.checkpoint import CheckpointStore
from cascadezoo.train.engine import make_accelerator
from cascadezoo.train.trainer import Trainer

STAGES = [
    {"name": "coarse", "kind": "flow.v1", "config": {"size": 4, "channels": 8, "blocks": 1}},
    {"name": "up", "kind": "flow-sr.v1", "config": {"channels": 8, "blocks": 1, "s_max": 0.2}},
    {"name": "refine", "kind": "vit.v1", "config": {"features": 16, "blocks": 1, "heads": 2}},
]


def networks(steps: int, **training: Any) -> dict[str, Any]:
    """Three real stages: each alone or frozen, then all jointly."""
    half = {"start": 0.5, "end": 0.5}
    phases = [
        {"name": "coarse", "train": ["coarse"], "steps": steps // 4},
        {"name": "rest", "train": ["up", "refine"], "steps": steps // 4, "teacher_forcing": half},
        {
            "name": "joint",
            "train": ["coarse", "up", "refine"],
            "steps": steps - 2 * (steps // 4),
            "joint": True,
            "teacher_forcing": {**half, "per": "batch"},
        },
    ]
    base = {"batch_size": 8, "losses": [], "phases": phases, "compile": False}
    data = {"source": "shapes", "config": {"size": 8, "count": 64}, "num_classes": 8}
    return {"name": "net", "data": data, "stages": STAGES, "training": {**base, **training}}


def single(steps: int, **training: Any) -> dict[str, Any]:
    """One small network in one phase."""
    config = {"size": 8, "channels": 8, "blocks": 1, "multipliers": [1]}
    stages = [{"name": "coarse", "kind": "flow.v1", "config": config}]
    phases = [{"name": "coarse", "train": ["coarse"], "steps": steps}]
    return {**networks(4, **{"phases": phases, **training}), "stages": stages}


def train(
    spec: dict[str, Any],
    folder: str | None = None,
    toys: str | None = None,
    stop_at: dict[int, int] | None = None,
    kill_at: dict[int, int] | None = None,
    figures_every: int | None = None,
) -> dict[str, np.ndarray]:
    """Train in this process; the final state.

    Args:
        spec: the spec.
        folder: stores checkpoints.
        toys: the module whose ``resolved`` or ``toys`` builds the cascade; None has real kinds.
        stop_at: the steps of the whole training after which processes want to stop, by rank.
        kill_at: the steps after which processes kill themselves, by rank.
        figures_every: add the state at each time that figures are measured, ``at-N.`` in front.
    """
    accelerator = make_accelerator(torch.device("cpu"), "fp32")
    images = np.random.default_rng(0).integers(0, 256, (64, 3, 8, 8), dtype=np.uint8)
    data = ImageData(images, np.arange(64) % 8, "train")
    loader = DeviceLoader(
        data,
        batch_size=8,
        seed=0,
        device="cpu",
        rank=accelerator.process_index,
        world=accelerator.num_processes,
    )
    if toys == "toys":
        import toys as module

        cascade = module.toys(spec)
    elif toys is not None:
        cascade = Cascade.from_spec(importlib.import_module(toys).resolved(spec))
    else:
        cascade = Cascade.from_spec(load_spec(spec))
    store = None if folder is None else CheckpointStore(Path(folder))
    calls = iter(range(1, 10**9))

    rank = accelerator.process_index

    def stop() -> str | None:
        done = next(calls)
        if done == (kill_at or {}).get(rank):
            os.kill(os.getpid(), signal.SIGKILL)
        return "SIGTERM" if done >= (stop_at or {}).get(rank, 10**9) else None

    measured: dict[str, np.ndarray] = {}

    def state() -> dict[str, np.ndarray]:
        return {k: v.numpy().copy() for k, v in cascade.stages.state_dict().items()}

    def figures(_: Cascade) -> list[dict[str, Any]]:
        number = trainer.position.global_step
        measured.update({f"at-{number}.{k}": v for k, v in state().items()})
        return []

    trainer = Trainer(
        cascade,
        loader,
        accelerator,
        data=data,
        store=store,
        stop=stop,
        figures=figures,
        figures_every=figures_every,
    )
    trainer.run()
    return {**state(), **measured}


def draw_together(total: int, batch_size: int, fail_at: int = -1) -> tuple[list[int], np.ndarray]:
    """Sample with all processes; the first images that this one drew, and in the first all images.

    Args:
        total: number of images.
        batch_size: images per batch.
        fail_at: the first image of a batch that cannot be drawn.
    """
    accelerator = make_accelerator(torch.device("cpu"), "fp32")
    drawn = []

    def sample(first: int, count: int) -> torch.Tensor:
        drawn.append(first)
        if first == fail_at:
            raise SampleError(f"image {first}")
        return torch.arange(first, first + count).float()

    rows = torch.empty(0)
    if accelerator.is_main_process:
        with SharedSampling(sample, total, batch_size) as shared:
            batches = [
                shared(first, min(batch_size, total - first))
                for first in range(0, total, batch_size)
            ]
            rows = torch.cat(batches)
    else:
        SharedSampling.serve(sample)
    return drawn, rows.numpy()
