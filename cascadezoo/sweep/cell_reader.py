"""Reads a cell's run folder: figures, times and course. Does not import torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cascadezoo.build.run_folder import RunFolder
from cascadezoo.errors import ModelError, RunFolderError
from cascadezoo.model_folder.layout import METRICS
from cascadezoo.model_folder.metrics_file import MetricsFile, read_metrics
from cascadezoo.model_folder.reproduction import SPEED
from cascadezoo.report.course import read_events
from cascadezoo.sweep.cells import Cell
from cascadezoo.sweep.results import CellResult, CoursePoint, StageResult, State

__all__ = ["is_done", "read_cell"]


def is_done(run: RunFolder, cell: Cell) -> bool:
    """Whether a run folder holds the finished build of a cell with its figures.

    Raises:
        RunFolderError: its run.json cannot be read.
    """
    state = run.state()
    done = state is not None and state.state == "done" and state.spec_digest == cell.digest
    return done and (run.model / METRICS).is_file()


def read_cell(
    folder: Path, cell: Cell, *, state: State = "waiting", error: str | None = None
) -> CellResult:
    """Read the result of a cell, finished or not.

    Args:
        folder: the sweep's folder.
        cell: the cell.
        state: its state if it is not done.
        error: the reason why it is not done.
    """
    place = f"cells/{cell.name}"
    run = RunFolder(folder / place)
    stages = [StageResult(name=s["name"], kind=s["kind"]) for s in cell.spec["stages"]]
    rows: dict[str, Any] = {"stages": stages}
    try:
        events = read_events(run.events) if run.events.is_file() else []
        rows |= _course(events)
        if is_done(run, cell):
            rows |= _measured(read_metrics(run.model))
            state, error = "done", None
    except ModelError as fault:
        state, error, rows = "failed", f"{place} is damaged: {fault.what}", {"stages": stages}
    except (RunFolderError, OSError, ValueError, KeyError, TypeError) as fault:
        what = fault.what if isinstance(fault, RunFolderError) else f"{place} is damaged: {fault!r}"
        state, error, rows = "failed", what, {"stages": stages}
    return CellResult(
        name=cell.name, labels=dict(cell.labels), state=state, error=error, run=place, **rows
    )


def _measured(metrics: MetricsFile) -> dict[str, Any]:
    kid = next((f for f in metrics.figures if f.metric == "kid"), None)
    # The shortest name is that of the whole cascade; a stage's name is appended to the others.
    lpips = min(
        (f for f in metrics.figures if f.metric == "lpips"),
        key=lambda f: f.name.count("."),
        default=None,
    )
    speed = next((f for f in metrics.figures if f.metric == SPEED), None)
    return {
        "stages": [
            StageResult(name=row.name, kind=row.kind, parameters=row.parameters)
            for row in metrics.stages
        ],
        "parameters": sum(row.parameters for row in metrics.stages),
        "figures": [figure.to_dict() for figure in metrics.figures],
        "kid": kid and kid.value,
        "kid_std": kid and kid.std,
        "kid_name": kid and kid.name,
        "lpips": lpips and lpips.value,
        "lpips_name": lpips and lpips.name,
        "images_per_second": speed and speed.value,
        "training_seconds": metrics.training.seconds,
        "phase_seconds": metrics.training.seconds_per_epoch,
        "device": metrics.training.device or None,
    }


def _course(events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """KID over the epochs of all phases, and the time of an epoch.

    Events with a missing field are left out; they are damaged.
    A resumed run records some steps twice; the last record counts.
    """

    def rows(event: str, *fields: str) -> list[Mapping[str, Any]]:
        return [e for e in events if e.get("event") == event and e.keys() >= {"phase", *fields}]

    per_epoch = {e["phase"]: e["steps_per_epoch"] for e in rows("phase", "steps_per_epoch")}
    epochs = {e["step"]: e for e in rows("epoch", "steps", "seconds") if e["phase"] in per_epoch}
    figures = {
        (e["step"], e["figure"]["name"]): e
        for e in rows("figure", "figure")
        if e["figure"].get("metric") == "kid" and _is_measured(e["figure"])
    }
    done = seconds = 0.0
    trained = {0: (0.0, 0.0)}
    for step in sorted(epochs):
        row = epochs[step]
        done += row["steps"] / per_epoch[row["phase"]]
        seconds += row["seconds"]
        trained[step] = (done, seconds)
    points = []
    for step, name in sorted(figures):
        row = figures[step, name]
        at = max(s for s in trained if s <= step)
        points.append(
            CoursePoint(
                epoch=round(trained[at][0], 4),
                seconds=round(trained[at][1], 3),
                phase=row["phase"],
                name=name,
                value=row["figure"]["value"],
                std=row["figure"].get("std"),
            )
        )
    names = {point.name for point in points}
    return {
        "course": points,
        "seconds_per_epoch": round(seconds / done, 4) if done else None,
        # Figures of different names are never averaged.
        "kid_mean": math.fsum(p.value for p in points) / len(points) if len(names) == 1 else None,
        "kid_mean_name": points[0].name if len(names) == 1 else None,
    }


def _is_measured(figure: Mapping[str, Any]) -> bool:
    """Whether a figure has a name, a value and a spread of the right types."""
    value, std = figure.get("value"), figure.get("std", 0.0)
    return isinstance(figure.get("name"), str) and all(
        isinstance(number, (int, float)) and math.isfinite(number) for number in (value, std)
    )
