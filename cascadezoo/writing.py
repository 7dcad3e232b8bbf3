"""Writes the model folder of a run: weights, pictures, metrics, card, config."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

from cascadezoo import __version__
from cascadezoo.cascade import Cascade
from cascadezoo.data.base import ImageData
from cascadezoo.errors import RunFolderError
from cascadezoo.evaluate.figures import Figure
from cascadezoo.hub.card import render_card
from cascadezoo.hub.layout import CARD, METRICS, SAMPLES, seal, weights_path, write_atomically
from cascadezoo.report.curves import draw_curves
from cascadezoo.report.images import samples_picture
from cascadezoo.run import RunFolder
from cascadezoo.stages.base import Stage
from cascadezoo.train.engine import describe_device
from cascadezoo.train.events import read_events
from cascadezoo.weights import save_state

__all__ = ["read_figures", "write_model"]

SHOWN = 36


def write_model(
    run: RunFolder,
    cascade: Cascade,
    figures: list[Figure],
    data: ImageData,
    precision: str,
    seconds: float,
) -> None:
    """Write ``model/`` and ``curves.png`` of a run whose training is done.

    Args:
        run: the run folder, with the events of the training.
        cascade: the trained cascade.
        figures: what was measured.
        data: the training images.
        precision: that the cascade was trained in.
        seconds: how long it was trained, over all sittings.

    Raises:
        RunFolderError: the disk is full or the folder is gone; the training is kept.
    """
    spec = cascade.spec
    metrics = _metrics(run, cascade, figures, data)
    metrics["training"] |= {"seconds": round(seconds, 2), "precision": precision}
    made = cascade.sample(SHOWN, seed=spec.evaluation.seed, return_stages=True)
    pictures = {s.name: made[s.name] for s in cascade.resolved.stages if not s.output.latent}
    try:
        draw_curves(run.events, run.curves)
        with run.new_model() as folder:
            for name, stage in cascade.named_stages():
                save_state(stage.saved_state(), folder / weights_path(name))
            samples_picture(pictures[cascade.names[-1]], pictures).save(folder / SAMPLES)
            text = json.dumps(metrics, indent=2, ensure_ascii=False) + "\n"
            write_atomically(folder / METRICS, text.encode())
            card = render_card(spec, metrics, cascade.resolved.data_info)
            write_atomically(folder / CARD, card.encode())
            seal(folder, spec, __version__)
    except OSError as error:
        raise RunFolderError(
            f"the model cannot be written to {run.model}: {error.strerror or error}",
            hint="make room there, then run the same command again: the training is kept",
        ) from error


def read_figures(path: Path) -> list[Figure]:
    """The figures of a metrics.json.

    Raises:
        RunFolderError: it cannot be read.
    """
    try:
        return [Figure.from_dict(row) for row in json.loads(path.read_bytes())["figures"]]
    except (OSError, ValueError, KeyError) as error:
        raise RunFolderError(
            f"{path} cannot be read: {error}", hint="build again with --fresh"
        ) from error


def _metrics(
    run: RunFolder, cascade: Cascade, figures: list[Figure], data: ImageData
) -> dict[str, Any]:
    events = list(read_events(run.events))
    epochs = [row for row in events if row["event"] == "epoch"]
    per_epoch = {row["phase"]: row["steps_per_epoch"] for row in events if row["event"] == "phase"}
    seconds: dict[str, float] = {}
    steps: dict[str, int] = {}
    for row in epochs:
        seconds[row["phase"]] = seconds.get(row["phase"], 0.0) + row["seconds"]
        steps[row["phase"]] = steps.get(row["phase"], 0) + row["steps"]
    return {
        "format": 1,
        "name": cascade.spec.name,
        "spec_digest": cascade.spec.digest(),
        "figures": [figure.to_dict() for figure in figures],
        "stages": [
            {
                "name": stage.name,
                "kind": stage.kind,
                "output": str(stage.output),
                "parameters": _saved_parameters(cascade.stage(stage.name)),
            }
            for stage in cascade.resolved.stages
        ],
        "training": {
            # By the step, since a phase may be shorter than an epoch or end within one.
            "seconds_per_epoch": {
                name: round(seconds[name] / steps[name] * per_epoch[name], 4) for name in seconds
            },
            "losses": {row["phase"]: row["losses"] for row in epochs},
            "device": describe_device(cascade.device),
            "processes": int(os.environ.get("WORLD_SIZE", "1")),
            "images": len(data),
            "data_digest": data.digest,
        },
        "course": [
            {key: row[key] for key in ("phase", "epoch", "step", "figure")}
            for row in events
            if row["event"] == "figure"
        ],
        "environment": {"cascadezoo": __version__, "torch": torch.__version__},
    }


def _saved_parameters(stage: Stage) -> int:
    """How many parameters a loaded model has."""
    saved = stage.saved_state()
    return sum(p.numel() for name, p in stage.named_parameters() if name in saved)
