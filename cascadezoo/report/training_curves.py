"""Training curves as one PNG: losses, figures, teacher forcing, learning rates, time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cascadezoo.report.charts import Axis, Chart
from cascadezoo.report.charts_png import write_png
from cascadezoo.report.course import read_course
from cascadezoo.report.course_charts import course_charts

__all__ = ["draw_curves"]


def draw_curves(source: Path | str | Iterable[Mapping[str, Any]], out_png: Path | str) -> Path:
    """Draw the course of a training: the charts of a report, one below the other.

    Args:
        source: an ``events.jsonl``, or the events themselves.
        out_png: the picture to write.

    Returns:
        ``out_png``.

    Raises:
        RunFolderError: the events cannot be read.
    """
    charts = course_charts(read_course(source))
    empty = Chart("Training", Axis("training step"), Axis("loss"), [])
    return write_png(charts or [empty], Path(out_png), columns=1, size=(9.0, 2.5))
