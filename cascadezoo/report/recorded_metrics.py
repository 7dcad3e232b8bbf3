"""The values of metrics.json that a page shows. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cascadezoo.model_folder.figures import Figure
from cascadezoo.model_folder.files import METRICS, file_exists
from cascadezoo.model_folder.metrics_file import AttributionRow as Attribution
from cascadezoo.model_folder.metrics_file import CourseRow, read_metrics

__all__ = ["Attribution", "Recorded", "read_recorded"]


@dataclass(slots=True)
class Recorded:
    """The content of metrics.json; missing values are empty.

    Args:
        figures: the figures in their order.
        seconds_per_epoch: seconds by phase.
        losses: the last losses of each phase, by ``stage.loss``; they may be nan.
        training: the recorded values of device, processes, images, seconds and precision.
        course: figures measured during training.
        attribution: quality by stage.
        environment: versions by name.
    """

    figures: list[Figure] = field(default_factory=list)
    seconds_per_epoch: dict[str, float] = field(default_factory=dict)
    losses: dict[str, dict[str, float]] = field(default_factory=dict)
    training: dict[str, str | float] = field(default_factory=dict)
    course: list[CourseRow] = field(default_factory=list)
    attribution: list[Attribution] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)


def read_recorded(folder: Path) -> Recorded | None:
    """Read the metrics.json of a model folder, leniently.

    Returns:
        Its content; None if the file does not exist.

    Raises:
        ModelError: it cannot be read, or a value has the wrong type; with its path.
    """
    if not file_exists(folder, METRICS):
        return None
    metrics = read_metrics(folder, strict=False)
    training = metrics.training
    recorded = training.model_fields_set
    numbers = {key: getattr(training, key) for key in ("seconds", "images", "processes")}
    texts = {key: getattr(training, key) for key in ("device", "precision")}
    return Recorded(
        figures=metrics.figures,
        seconds_per_epoch=training.seconds_per_epoch,
        losses=training.losses,
        training={
            **{k: text for k, text in texts.items() if k in recorded},
            **{k: float(n) for k, n in numbers.items() if k in recorded and n is not None},
        },
        course=metrics.course,
        attribution=metrics.attribution or [],
        environment=metrics.environment,
    )
