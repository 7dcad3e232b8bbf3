"""The results of a sweep, by cell and over all cells. Does not import torch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from cascadezoo.sweep.correlation import Correlation, Within, correlate
from cascadezoo.sweep.variance import Best, Variance, analyze_variance, compare_with_best

__all__ = [
    "MEASURES",
    "CellResult",
    "Correlation",
    "CoursePoint",
    "GroupResult",
    "Spread",
    "StageResult",
    "SweepResults",
    "Within",
    "label_text",
    "summarize",
]

State = Literal["done", "failed", "stopped", "waiting"]

MEASURES = (
    "kid",
    "kid_mean",
    "lpips",
    "seconds_per_epoch",
    "training_seconds",
    "images_per_second",
)
"""The numbers of a cell that groups summarise with mean and spread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageResult:
    """A stage of a cell.

    Args:
        name: its name.
        kind: its kind.
        parameters: number of parameters of the trained stage; None if the cell is not done.
    """

    name: str
    kind: str
    parameters: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CoursePoint:
    """A figure measured during training.

    Args:
        epoch: finished epochs, over all phases.
        seconds: training time so far, over all phases, without evaluation.
        phase: the name of the phase.
        name: the figure's name, ``kid.small.n500``.
        value: the figure.
        std: its spread over subsets.
    """

    epoch: float
    seconds: float
    phase: str
    name: str
    value: float
    std: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CellResult:
    """The description, state and measurements of one cell.

    Args:
        name: the cell's name.
        labels: its label on each axis.
        state: ``done``, ``failed``, ``stopped`` (resumes with the sweep) or ``waiting``.
        error: the reason why it failed or was stopped.
        run: its run folder, relative to the sweep's folder.
        stages: its stages, from the generator on.
        parameters: total of all stages.
        figures: rows from ``Figure.to_dict``.
        kid: the final KID, as in the figure (not times 1000).
        kid_std: its spread over subsets.
        kid_mean: the mean of the KIDs recorded during training.
        lpips: LPIPS of the last stage that has it.
        seconds_per_epoch: mean over all epochs of all phases.
        training_seconds: total over all resumed runs.
        images_per_second: sampling speed.
        course: KID during training.
        kid_name: the final KID figure's name.
        kid_mean_name: the name of the figures in ``course``.
        lpips_name: the LPIPS figure's name.
        phase_seconds: seconds per epoch of each phase.
        device: the training device.
    """

    name: str
    labels: dict[str, str]
    state: State
    error: str | None = None
    run: str
    stages: list[StageResult] = field(default_factory=list)
    parameters: int | None = None
    figures: list[dict[str, Any]] = field(default_factory=list)
    kid: float | None = None
    kid_std: float | None = None
    kid_mean: float | None = None
    lpips: float | None = None
    seconds_per_epoch: float | None = None
    training_seconds: float | None = None
    images_per_second: float | None = None
    course: list[CoursePoint] = field(default_factory=list)
    kid_name: str | None = None
    kid_mean_name: str | None = None
    lpips_name: str | None = None
    phase_seconds: dict[str, float] = field(default_factory=dict)
    device: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The cell as in results.json."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read a cell that :meth:`to_dict` wrote."""
        rows = dict(data)
        rows["stages"] = [StageResult(**row) for row in rows.get("stages", ())]
        rows["course"] = [CoursePoint(**row) for row in rows.get("course", ())]
        return cls(**rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Mean and spread over seeds.

    Args:
        mean: the mean over the ``count`` cells that have the number.
        std: sample standard deviation (divided by ``count - 1``); None for a single cell.
        count: number of cells that have the number.
    """

    mean: float
    std: float | None
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupResult:
    """Cells that differ only in seeds.

    Args:
        name: the labels without the seeds', joined.
        labels: the labels without the seeds'.
        cells: the names of all its cells.
        count: how many of them are done.
        parameters: number of parameters of each cell; None if no cell is done.
        kid_name: the name of the ``kid`` figure.
        spreads: mean and spread over the finished cells, by name from :data:`MEASURES`; only for
            numbers that a cell has.
    """

    name: str
    labels: dict[str, str]
    cells: list[str]
    count: int
    parameters: int | None = None
    kid_name: str | None = None
    spreads: dict[str, Spread] = field(default_factory=dict)

    def mean(self, measure: str) -> float | None:
        """The mean of a measure, e.g. ``kid``; None if it was not measured."""
        return self.spreads[measure].mean if measure in self.spreads else None

    def std(self, measure: str) -> float | None:
        """The spread of a measure over seeds; None for fewer than two."""
        return self.spreads[measure].std if measure in self.spreads else None


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepResults:
    """The results of a sweep.

    Args:
        name: the sweep's name.
        description: its description.
        axes: the names of its axes.
        cells: every cell, in the order of the sweep.
        groups: groups of cells that differ only in seeds, in the order of the sweep.
        correlation: correlation of parameters and KID; None if fewer than three groups were
            measured, or if the figures are not comparable.
        settings: a summary of the base of all cells.
        machine: the machine of the sweep.
        started: the first start, as ISO 8601 in UTC.
        seed_axes: the axes that are seeds.
        notes: what a reader must know besides the numbers.
        variance: the shares of the axes in the variance of KID.
        best: the combination with the lowest KID, compared with the others; None for one seed.
    """

    name: str
    description: str
    axes: list[str]
    cells: list[CellResult]
    groups: list[GroupResult]
    correlation: Correlation | None
    settings: dict[str, Any]
    machine: dict[str, Any]
    started: str
    seed_axes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    variance: Variance | None = None
    best: Best | None = None

    @property
    def failed(self) -> list[CellResult]:
        """The cells that failed."""
        return [cell for cell in self.cells if cell.state == "failed"]

    @property
    def done(self) -> list[CellResult]:
        """The cells that are done."""
        return [cell for cell in self.cells if cell.state == "done"]

    def to_dict(self) -> dict[str, Any]:
        """The content of results.json."""
        return {"results_version": 1, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read results that :meth:`to_dict` wrote."""
        rows = {key: value for key, value in data.items() if key != "results_version"}
        rows["cells"] = [CellResult.from_dict(row) for row in rows["cells"]]
        rows["groups"] = [
            GroupResult(**{**row, "spreads": {k: Spread(**v) for k, v in row["spreads"].items()}})
            for row in rows["groups"]
        ]
        data = rows["correlation"]
        rows["correlation"] = None if data is None else Correlation.from_dict(data)
        if rows.get("variance") is not None:
            rows["variance"] = Variance.from_dict(rows["variance"])
        if rows.get("best") is not None:
            rows["best"] = Best.from_dict(rows["best"])
        return cls(**rows)


def summarize(
    cells: Sequence[CellResult],
    *,
    name: str,
    description: str,
    axes: Sequence[str],
    seed_axes: Sequence[str],
    stage_axes: Sequence[str],
    settings: Mapping[str, Any],
    machine: Mapping[str, Any],
    started: str,
) -> SweepResults:
    """Group cells that differ only in seeds, and correlate parameters with KID.

    Args:
        cells: every cell, in the order of the sweep.
        name: the sweep's name.
        description: its description.
        axes: the names of its axes.
        seed_axes: the axes that are seeds.
        stage_axes: the axes whose alternatives are whole stages.
        settings: a summary of the base of all cells.
        machine: the machine of the sweep.
        started: its first start, as ISO 8601 in UTC.
    """
    groups = _groups(cells, seed_axes)
    names = {cell.kid_name for cell in cells if cell.kid is not None}
    notes = []
    if len(names) > 1:
        listed = ", ".join(sorted(str(n) for n in names))
        notes.append(f"KIDs of different figures cannot be compared: {listed}.")
    waiting = sum(cell.state in ("waiting", "stopped") for cell in cells)
    if waiting:
        notes.append(f"{waiting} of {len(cells)} cells are not finished.")
    correlation = variance = best = None
    if len(names) == 1:
        correlation = correlate(
            [_point(g) for g in groups if g.parameters and "kid" in g.spreads], within=stage_axes
        )
        measured = [(c.labels, c.kid) for c in cells if c.kid is not None]
        variance = analyze_variance(measured, axes=axes, seed_axes=seed_axes)
        values: dict[str, list[float]] = {}
        for labels, kid in measured:
            values.setdefault(label_text(labels, seed_axes) or "all", []).append(kid)
        best = compare_with_best(values)
    return SweepResults(
        name=name,
        description=description,
        axes=list(axes),
        cells=list(cells),
        groups=groups,
        correlation=correlation,
        settings=dict(settings),
        machine=dict(machine),
        started=started,
        seed_axes=list(seed_axes),
        notes=notes,
        variance=variance,
        best=best,
    )


def label_text(labels: Mapping[str, str], leave_out: Iterable[str] = ()) -> str:
    """Join labels into a name, without the labels of some axes.

    >>> label_text({"generator": "dae", "seed": "s0"}, ["seed"])
    'dae'
    """
    out = frozenset(leave_out)
    return "-".join(label for axis, label in labels.items() if axis not in out)


def _point(group: GroupResult) -> tuple[dict[str, str], int, float]:
    return group.labels, group.parameters or 0, group.spreads["kid"].mean


def _groups(cells: Sequence[CellResult], seed_axes: Sequence[str]) -> list[GroupResult]:
    rows: dict[tuple[tuple[str, str], ...], list[CellResult]] = {}
    for cell in cells:
        key = tuple((a, label) for a, label in cell.labels.items() if a not in seed_axes)
        rows.setdefault(key, []).append(cell)
    return [_group(dict(key), members) for key, members in rows.items()]


def _group(labels: dict[str, str], members: Sequence[CellResult]) -> GroupResult:
    done = [cell for cell in members if cell.state == "done"]
    spreads = {}
    for measure in MEASURES:
        values = [getattr(cell, measure) for cell in done]
        row = mean_and_std([value for value in values if value is not None])
        if row is not None:
            spreads[measure] = row
    return GroupResult(
        name=label_text(labels) or "all",
        labels=labels,
        cells=[cell.name for cell in members],
        count=len(done),
        parameters=done[0].parameters if done else None,
        kid_name=next((cell.kid_name for cell in done if cell.kid_name), None),
        spreads=spreads,
    )


def mean_and_std(values: Sequence[float]) -> Spread | None:
    """Mean and sample standard deviation; None without values."""
    if not values:
        return None
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Spread(mean=mean, std=None, count=1)
    variance = math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)
    return Spread(mean=mean, std=math.sqrt(variance), count=len(values))
