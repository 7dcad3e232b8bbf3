"""Writes the model folder of a run: weights, pictures, metrics, card, config."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from cascadezoo._version import __version__
from cascadezoo.build.run_folder import RunFolder
from cascadezoo.cards.render_card import render_card
from cascadezoo.cascade.cascade import Cascade
from cascadezoo.cascade.stage_costs import stage_rows
from cascadezoo.cascade.weights import save_state
from cascadezoo.data.base import ImageData
from cascadezoo.errors import ModelError, RunFolderError
from cascadezoo.model_folder.data_trust import record_built
from cascadezoo.model_folder.figures import Figure
from cascadezoo.model_folder.integrity import seal
from cascadezoo.model_folder.layout import CARD, METRICS, SAMPLES, weights_path
from cascadezoo.model_folder.metrics_file import (
    CourseRow,
    DataRow,
    MetricsFile,
    TrainingRow,
    read_metrics,
)
from cascadezoo.report.charts_png import draw_curves
from cascadezoo.report.images import samples_picture
from cascadezoo.train.engine import describe_device
from cascadezoo.train.events import read_events
from cascadezoo.util.files import write_atomically

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
    """Write ``model/`` and ``curves.png`` of a trained run.

    Args:
        run: the run folder, with the events of the training.
        cascade: the trained cascade.
        figures: the measured figures.
        data: the training images.
        precision: the precision of the training.
        seconds: training time over all resumed runs.

    Raises:
        RunFolderError: the disk is full or the folder is missing; the checkpoints are kept.
    """
    spec = cascade.spec
    metrics = MetricsFile(
        name=spec.name,
        spec_digest=spec.digest(),
        figures=figures,
        stages=stage_rows(cascade),
        **_run_rows(list(read_events(run.events)), cascade, data, precision, seconds),
        environment={"cascadezoo": __version__, "torch": torch.__version__},
    )
    samples = cascade.sample(SHOWN, seed=spec.evaluation.seed, return_stages=True)
    pictures = {s.name: samples[s.name] for s in cascade.resolved.stages if not s.output.latent}
    try:
        draw_curves(run.events, run.curves)
        with run.new_model() as folder:
            for name, stage in cascade.named_stages():
                save_state(stage.saved_state(), folder / weights_path(name))
            samples_picture(pictures[cascade.names[-1]], pictures).save(folder / SAMPLES)
            write_atomically(folder / METRICS, metrics.to_json().encode())
            card = render_card(spec, metrics.to_dict(), cascade.resolved.data_info)
            write_atomically(folder / CARD, card.encode())
            config = seal(folder, spec, __version__)
    except OSError as error:
        raise RunFolderError(
            f"cannot write the model to {run.model}: {error.strerror or error}",
            hint="free some space, then run the same command again; the training is kept",
            code="run-folder-model-not-writable",
            path=run.model,
        ) from error
    record_built(config)


def read_figures(path: Path) -> list[Figure]:
    """Read the figures of a metrics.json.

    Raises:
        RunFolderError: the file cannot be read or is invalid.
    """
    try:
        return read_metrics(path.parent).figures
    except ModelError as error:
        raise RunFolderError(
            error.what,
            hint="build again with --fresh",
            code="run-folder-model-damaged",
            path=path,
        ) from error


def _run_rows(
    events: list[dict[str, Any]],
    cascade: Cascade,
    data: ImageData,
    precision: str,
    seconds: float,
) -> dict[str, Any]:
    """The fields ``training``, ``course`` and ``data`` of a metrics.json."""
    epochs = [row for row in events if row["event"] == "epoch"]
    per_epoch = {row["phase"]: row["steps_per_epoch"] for row in events if row["event"] == "phase"}
    spent: dict[str, float] = {}
    steps: dict[str, int] = {}
    for row in epochs:
        spent[row["phase"]] = spent.get(row["phase"], 0.0) + row["seconds"]
        steps[row["phase"]] = steps.get(row["phase"], 0) + row["steps"]
    training = TrainingRow(
        # Scaled from the time per step: a phase may be shorter than an epoch or end within one.
        seconds_per_epoch={n: round(spent[n] / steps[n] * per_epoch[n], 4) for n in spent},
        losses={row["phase"]: row["losses"] for row in epochs},
        device=describe_device(cascade.device),
        processes=int(os.environ.get("WORLD_SIZE", "1")),
        images=len(data),
        data_digest=data.digest,
        seconds=round(seconds, 2),
        precision=precision,
        device_peak_bytes=_largest(epochs, "device_peak_bytes"),
        process_peak_bytes=_largest(epochs, "process_peak_bytes"),
    )
    course = [
        CourseRow(
            phase=row["phase"],
            epoch=row["epoch"],
            step=row["step"],
            figure=Figure.from_dict(row["figure"], source="events.jsonl"),
        )
        for row in events
        if row["event"] == "figure"
    ]
    info = cascade.resolved.data_info
    source = cascade.spec.data.source
    about = DataRow(source=source, title=info.title, license=info.license, hub_id=info.hub_id)
    return {"training": training, "course": course, "data": about}


def _largest(rows: Iterable[dict[str, Any]], key: str) -> int | None:
    """The maximum over all processes that resumed the build; None if absent."""
    return max((row[key] for row in rows if key in row), default=None)
