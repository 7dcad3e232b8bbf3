"""Writes the model folder of a run: weights, pictures, metrics, card, config."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
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
from cascadezoo.data.streamed import StreamedData
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
from cascadezoo.train.events import read_event_rows
from cascadezoo.train.skipped import count_skipped
from cascadezoo.util.files import disk_full, write_atomically

__all__ = ["read_built", "write_model"]

SHOWN = 36


def write_model(
    run: RunFolder,
    cascade: Cascade,
    figures: list[Figure],
    data: ImageData,
    precision: str,
    seconds: float,
    warnings: Sequence[str] = (),
) -> None:
    """Write ``model/`` and ``curves.png`` of a trained run.

    Args:
        run: the run folder, with the events of the training.
        cascade: the trained cascade.
        figures: the measured figures.
        data: the training images.
        precision: the precision of the training.
        seconds: training time over all resumed runs.
        warnings: what the build found wrong with the trained model.

    Raises:
        DiskFullError: the disk is full; the checkpoints and a former model are kept.
        RunFolderError: the folder cannot be written; the checkpoints are kept.
    """
    spec = cascade.spec
    metrics = MetricsFile(
        name=spec.name,
        spec_digest=spec.digest(),
        figures=figures,
        stages=stage_rows(cascade),
        **_run_rows(read_event_rows(run.events).rows, cascade, data, precision, seconds, warnings),
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
        hint = "run the same command again; the training is kept"
        full = disk_full(error, run.model, hint=f"free space on that disk, then {hint}")
        raise full or RunFolderError(
            f"cannot write the model to {run.model}: {error.strerror or error}",
            hint=f"make the folder writable, then {hint}",
            code="run-folder-model-not-writable",
            path=run.model,
        ) from error
    record_built(config)


def read_built(model: Path) -> MetricsFile:
    """Read the metrics.json of a model that was built.

    Raises:
        RunFolderError: the file cannot be read or is invalid.
    """
    try:
        return read_metrics(model)
    except ModelError as error:
        raise RunFolderError(
            error.what,
            hint="build again with --fresh",
            code="run-folder-model-damaged",
            path=model / METRICS,
        ) from error


def _run_rows(
    events: list[dict[str, Any]],
    cascade: Cascade,
    data: ImageData,
    precision: str,
    seconds: float,
    warnings: Sequence[str],
) -> dict[str, Any]:
    """The fields ``training``, ``course`` and ``data`` of a metrics.json.

    Events with a missing field are left out; they are damaged.
    """
    phases = {phase.name for phase in cascade.spec.training.phases or []}

    def rows(event: str, *fields: str) -> list[dict[str, Any]]:
        return [
            row
            for row in events
            if row["event"] == event and row.get("phase") in phases and row.keys() >= {*fields}
        ]

    epochs = rows("epoch", "steps", "seconds", "losses")
    marks = rows("phase", "steps_per_epoch")
    per_epoch = {row["phase"]: row["steps_per_epoch"] for row in marks}
    spent: dict[str, float] = {}
    steps: dict[str, int] = {}
    for row in epochs:
        spent[row["phase"]] = spent.get(row["phase"], 0.0) + row["seconds"]
        steps[row["phase"]] = steps.get(row["phase"], 0) + row["steps"]
    skipped = shards = None
    if isinstance(data, StreamedData):
        skipped, shards = count_skipped(events), len(data.skipped_shards)
    training = TrainingRow(
        # Scaled from the time per step: a phase may be shorter than an epoch or end within one.
        seconds_per_epoch={
            name: round(spent[name] / steps[name] * per_epoch[name], 4)
            for name in spent
            if name in per_epoch and steps[name] > 0
        },
        losses={row["phase"]: row["losses"] for row in epochs},
        device=describe_device(cascade.device),
        processes=int(os.environ.get("WORLD_SIZE", "1")),
        images=len(data),
        data_digest=data.digest,
        skipped_images=skipped,
        skipped_shards=shards,
        seconds=round(seconds, 2),
        precision=precision,
        device_peak_bytes=_largest(epochs, "device_peak_bytes"),
        process_peak_bytes=_largest(epochs, "process_peak_bytes"),
        warnings=[*warnings],
    )
    course = [
        CourseRow(
            phase=row["phase"],
            epoch=row["epoch"],
            step=row["step"],
            figure=figure,
        )
        for row in rows("figure", "epoch", "figure")
        if (figure := _figure(row["figure"])) is not None
    ]
    info = cascade.resolved.data_info
    source = cascade.spec.data.source
    about = DataRow(source=source, title=info.title, license=info.license, hub_id=info.hub_id)
    return {"training": training, "course": course, "data": about}


def _figure(data: dict[str, Any]) -> Figure | None:
    """The figure of an event; None if it is damaged."""
    try:
        return Figure.from_dict(data, source="events.jsonl")
    except ModelError:
        return None


def _largest(rows: Iterable[dict[str, Any]], key: str) -> int | None:
    """The maximum over all processes that resumed the build; None if absent."""
    return max((row[key] for row in rows if key in row), default=None)
