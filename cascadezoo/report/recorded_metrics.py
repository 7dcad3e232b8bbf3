"""What a model's metrics.json tells, read with care: it may be a stranger's. Free of torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cascadezoo.errors import ModelError
from cascadezoo.model_folder.figures import Figure
from cascadezoo.model_folder.layout import METRICS

__all__ = ["Attribution", "Recorded", "RecordedFigure", "read_recorded"]

MOST_BYTES = 32 * 2**20
_HINT = "fetch the model again; a newer cascadezoo may have written it"


@dataclass(frozen=True, slots=True)
class RecordedFigure:
    """A figure in the course of a training."""

    phase: str
    epoch: float
    step: float
    figure: Figure


@dataclass(frozen=True, slots=True)
class Attribution:
    """What a stage makes of real upstream images, and of generated ones.

    Args:
        stage: its name.
        real: the figure of its output for real upstream images; None of a generator.
        generated: likewise for generated ones.
        mismatch: by how much the second is worse; None where it was not recorded.
        share: the part of the whole cascade's figure that comes in at this stage, likewise.
    """

    stage: str
    real: Figure | None
    generated: Figure | None
    mismatch: float | None
    share: float | None = None


@dataclass(slots=True)
class Recorded:
    """The content of metrics.json; what it does not hold is empty.

    Args:
        figures: in their order.
        seconds_per_epoch: by phase.
        losses: the last of each phase, by ``stage.loss``; they may be nan.
        training: device, processes, images, seconds, precision, as far as recorded.
        course: figures measured while it trained.
        attribution: by stage.
        environment: versions by name.
    """

    figures: list[Figure] = field(default_factory=list)
    seconds_per_epoch: dict[str, float] = field(default_factory=dict)
    losses: dict[str, dict[str, float]] = field(default_factory=dict)
    training: dict[str, str | float] = field(default_factory=dict)
    course: list[RecordedFigure] = field(default_factory=list)
    attribution: list[Attribution] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)


def read_recorded(folder: Path) -> Recorded | None:
    """Read the metrics.json of a model folder.

    Returns:
        What it holds; None where there is no such file.

    Raises:
        ModelError: it cannot be read, or a value is not what it should be; with its place.
    """
    path = folder / METRICS
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read: {error.strerror or error}",
            hint=_HINT,
            code="model-metrics-unreadable",
            path=path,
        ) from error
    if len(text) > MOST_BYTES:
        raise ModelError(
            f"{path} is larger than {MOST_BYTES >> 20} MiB",
            hint=_HINT,
            code="model-metrics-too-large",
            path=path,
        )
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(
            f"{path} is not JSON: {str(error)[:200]}",
            hint=_HINT,
            code="model-metrics-not-json",
            path=path,
        ) from error
    return _Reader(str(path)).read(data)


class _Reader:
    def __init__(self, source: str) -> None:
        self.source = source

    def read(self, data: object) -> Recorded:
        top = self.mapping(data, "")
        training = self.mapping(top.get("training"), "training")
        losses = self.mapping(training.get("losses"), "training.losses")
        return Recorded(
            figures=[
                self.figure(row, f"figures.{i}")
                for i, row in enumerate(self.rows(top.get("figures"), "figures"))
            ],
            seconds_per_epoch=self.numbers(
                training.get("seconds_per_epoch"), "training.seconds_per_epoch"
            ),
            losses={
                str(phase): self.numbers(row, f"training.losses.{phase}")
                for phase, row in losses.items()
            },
            training={
                key: training[key] if isinstance(training[key], str) else self.number(
                    training[key], f"training.{key}"
                )
                for key in ("device", "precision", "seconds", "images", "processes")
                if training.get(key) is not None
            },
            course=list(self.course(top.get("course"))),
            attribution=list(self.attribution(top.get("attribution"))),
            environment={
                str(key): str(value)
                for key, value in self.mapping(top.get("environment"), "environment").items()
            },
        )  # fmt: skip

    def course(self, value: object) -> Iterator[RecordedFigure]:
        for i, given in enumerate(self.rows(value, "course")):
            place = f"course.{i}"
            row = self.mapping(given, place)
            yield RecordedFigure(
                str(row.get("phase", "")),
                self.number(row.get("epoch", 0), f"{place}.epoch"),
                self.number(row.get("step", 0), f"{place}.step"),
                self.figure(row.get("figure"), f"{place}.figure"),
            )

    def attribution(self, value: object) -> Iterator[Attribution]:
        for i, given in enumerate(self.rows(value, "attribution")):
            place = f"attribution.{i}"
            row = self.mapping(given, place)
            real, made, off = (row.get(k) for k in ("real", "generated", "mismatch"))
            share = row.get("share")
            yield Attribution(
                str(row.get("stage", "")),
                None if real is None else self.figure(real, f"{place}.real"),
                None if made is None else self.figure(made, f"{place}.generated"),
                None if off is None else self.number(off, f"{place}.mismatch"),
                None if share is None else self.number(share, f"{place}.share"),
            )

    def figure(self, value: object, place: str) -> Figure:
        return Figure.from_dict(self.mapping(value, place), source=f"{self.source}: {place}")

    def mapping(self, value: object, place: str) -> Mapping[str, Any]:
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise self.fault(value, place, "an object")
        return value

    def rows(self, value: object, place: str) -> list[Any]:
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.fault(value, place, "a list")
        return value

    def numbers(self, value: object, place: str) -> dict[str, float]:
        rows = self.mapping(value, place)
        return {str(key): self.number(one, f"{place}.{key}") for key, one in rows.items()}

    def number(self, value: object, place: str) -> float:
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise self.fault(value, place, "a number")
        try:
            return float(value)
        except OverflowError:
            raise self.fault("a number beyond all bounds", place, "a number") from None

    def fault(self, value: object, place: str, wanted: str) -> ModelError:
        found = value if isinstance(value, str) else type(value).__name__
        where = f": {place}" if place else ""
        return ModelError(
            f"{self.source}{where} is {found!a:.80}, not {wanted}",
            hint=_HINT,
            code="model-metrics-value",
            place=place,
            found=found,
            wanted=wanted,
        )
