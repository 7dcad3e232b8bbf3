"""The course of a training as charts: losses, figures, teacher forcing, time."""

from __future__ import annotations

from collections.abc import Mapping

from cascadezoo.model_folder.reproduction import metric_texts
from cascadezoo.report.charts import Axis, Band, Chart, Point, Series, thin
from cascadezoo.report.course import Course, Line
from cascadezoo.report.model_view import ModelView

__all__ = ["axis_label", "course_charts"]


def axis_label(metric: str) -> str:
    """What stands at an axis of a metric: ``KID x 1000``."""
    texts = metric_texts(metric)
    return texts.title if texts.scale == 1.0 else f"{texts.title} x {texts.scale:g}"


def course_charts(view: ModelView) -> list[Chart]:
    """The charts of a model's training, as far as something was recorded.

    Figures come from the run's events, and of a model without its run from its metrics.json.
    """
    if view.course is None:
        return _recorded_figures(view)
    course = view.course
    bands = [Band(p.name, p.start, p.end) for p in course.phases if p.end > p.start]
    across = Axis("training step", zero=True)
    charts = []
    if course.losses:
        series = _lines(course.losses)
        note = "" if len(course.phases) < 2 else "Phases are shaded in turn."
        charts.append(Chart("Losses", across, Axis("loss", log=True), series, note, bands))
    charts += _figures(course, across, bands)
    if course.forcing:
        up = Axis("probability of the true image", low=0.0, high=1.05)
        series = _lines({"": course.forcing})
        charts.append(Chart("Teacher forcing", across, up, series, bands=bands))
    if course.epochs:
        up = Axis("seconds", zero=True)
        charts.append(
            Chart("Time of each epoch", across, up, _lines({"": course.epochs}), bands=bands)
        )
    return charts


def _lines(rows: Mapping[str, Mapping[int, Line]]) -> list[Series]:
    """A line for each quantity and phase; those of one quantity look alike."""
    return [
        Series(
            name,
            thin([Point(float(x), y) for x, y in zip(line.steps, line.values, strict=True)]),
            joined=True,
            style=style,
        )
        for style, (name, lines) in enumerate(rows.items())
        for line in lines.values()
    ]


def _figures(course: Course, across: Axis, bands: list[Band]) -> list[Chart]:
    """A chart for each metric, a line for each figure's name."""
    rows: dict[str, dict[str, list[Point]]] = {}
    for name, points in course.figures.items():
        metric = name.partition(".")[0]
        scale = metric_texts(metric).scale
        rows.setdefault(metric, {})[name] = [
            Point(float(step), value * scale, None if std is None else std * scale)
            for step, value, std in points
        ]
    return [_figure_chart(metric, named, across, bands) for metric, named in rows.items()]


def _figure_chart(
    metric: str, named: Mapping[str, list[Point]], across: Axis, bands: list[Band]
) -> Chart:
    series = [Series(name, points, joined=True) for name, points in named.items()]
    title = f"{metric_texts(metric).title} in training"
    return Chart(title, across, Axis(axis_label(metric), zero=True), series, bands=bands)


def _recorded_figures(view: ModelView) -> list[Chart]:
    if view.recorded is None or not view.recorded.course:
        return []
    rows: dict[str, dict[str, list[Point]]] = {}
    for one in view.recorded.course:
        figure = one.figure
        scale = metric_texts(figure.metric).scale
        point = Point(
            one.step, figure.value * scale, None if figure.std is None else figure.std * scale
        )
        rows.setdefault(figure.metric, {}).setdefault(figure.name, []).append(point)
    across = Axis("training step", zero=True)
    return [_figure_chart(metric, named, across, []) for metric, named in rows.items()]
