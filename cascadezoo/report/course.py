"""The course of a training, read from the events of its run. Free of torch and matplotlib."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cascadezoo.train.events import read_event_rows

__all__ = ["Course", "Line", "PhaseSpan", "read_course", "read_events"]


@dataclass(frozen=True, slots=True)
class PhaseSpan:
    """A phase with its first and last global step."""

    name: str
    index: int
    start: int
    end: int


@dataclass(slots=True)
class Line:
    """A quantity over the global steps of one phase."""

    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def add(self, step: int, value: float) -> None:
        """Append a point."""
        self.steps.append(step)
        self.values.append(value)


@dataclass(slots=True)
class Course:
    """The course of a training: every quantity by name, with one line per phase.

    Attributes:
        losses: losses by ``stage.loss``.
        rates: learning rates by stage.
        forcing: teacher forcing.
        epochs: seconds of each complete epoch, at its last step.
        figures: step, value and spread of measured figures, by name.
        dropped: the number of events that were dropped because they are damaged.
    """

    phases: list[PhaseSpan] = field(default_factory=list)
    losses: dict[str, dict[int, Line]] = field(default_factory=dict)
    rates: dict[str, dict[int, Line]] = field(default_factory=dict)
    forcing: dict[int, Line] = field(default_factory=dict)
    epochs: dict[int, Line] = field(default_factory=dict)
    figures: dict[str, list[tuple[int, float, float | None]]] = field(default_factory=dict)
    dropped: int = 0


def read_events(source: Path | str | Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Read the events of a run.

    Args:
        source: an ``events.jsonl``, or the events. Damaged rows of the file are skipped.

    Raises:
        RunFolderError: the file cannot be read.
    """
    if not isinstance(source, (str, Path)):
        return list(source)
    return [*read_event_rows(Path(source), missing_ok=False).rows]


def read_course(source: Path | str | Iterable[Mapping[str, Any]]) -> Course:
    """Read the course of a training from its events.

    Unknown events are skipped. A run that resumed from a checkpoint repeats some steps; the last
    event of a step counts.

    Args:
        source: see :func:`read_events`.

    Raises:
        RunFolderError: the file cannot be read.
    """
    dropped, events = 0, source
    if isinstance(events, (str, Path)):
        read = read_event_rows(Path(events), missing_ok=False)
        dropped, events = read.dropped, read.rows
    latest: dict[tuple[str, int, str], Mapping[str, Any]] = {}
    for row in events:
        step = row.get("step")
        if not isinstance(step, int):
            continue
        kind = str(row.get("event"))
        extra = ""
        if kind == "phase":
            extra = f"{row.get('phase_index')} {row.get('state')}"
        elif kind == "figure":
            extra = str(_mapping(row.get("figure")).get("name"))
        latest[kind, step, extra] = row
    rows = sorted(latest.values(), key=lambda row: int(row["step"]))
    course = Course(phases=_phases(rows), dropped=dropped)
    for row in rows:
        _add_event(course, row)
    return course


def _add_event(course: Course, row: Mapping[str, Any]) -> None:
    step, kind = int(row["step"]), row.get("event")
    if kind == "log":
        index = _index(course, row)
        for name, value in _numbers(row.get("losses")).items():
            course.losses.setdefault(name, {}).setdefault(index, Line()).add(step, value)
        for name, value in _numbers(row.get("lr")).items():
            course.rates.setdefault(name, {}).setdefault(index, Line()).add(step, value)
        for value in _numbers({"": row.get("teacher_forcing")}).values():
            course.forcing.setdefault(index, Line()).add(step, value)
    elif kind == "epoch" and row.get("whole", True):
        for value in _numbers({"": row.get("seconds")}).values():
            course.epochs.setdefault(_index(course, row), Line()).add(step, value)
    elif kind == "figure":
        figure = _mapping(row.get("figure"))
        numbers = _numbers({key: figure.get(key) for key in ("value", "std")})
        if "value" in numbers:
            points = course.figures.setdefault(str(figure.get("name")), [])
            points.append((step, numbers["value"], numbers.get("std")))


def _phases(rows: list[Mapping[str, Any]]) -> list[PhaseSpan]:
    """The phases from all events that name them."""
    names: list[tuple[int, str]] = []
    spans: dict[tuple[int, str], tuple[int, int]] = {}
    for row in rows:
        if not isinstance(row.get("phase"), str):
            continue
        index, name, step = row.get("phase_index"), str(row["phase"]), int(row["step"])
        if isinstance(index, int):
            key = (index, name)
        else:
            same = [known for known in names if known[1] == name]
            if not same:
                continue
            key = same[-1]
        if key not in spans:
            names.append(key)
        low, high = spans.get(key, (step, step))
        spans[key] = (min(low, step), max(high, step))
    return [PhaseSpan(name, index, *spans[index, name]) for index, name in sorted(spans)]


def _index(course: Course, row: Mapping[str, Any]) -> int:
    index = row.get("phase_index")
    if isinstance(index, int):
        return index
    same = [p.index for p in course.phases if p.name == row.get("phase")]
    return same[-1] if same else 0


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _numbers(value: object) -> dict[str, float]:
    return {
        str(name): float(number)
        for name, number in _mapping(value).items()
        if isinstance(number, (int, float)) and not isinstance(number, bool)
    }
