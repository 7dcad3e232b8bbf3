"""The course of a training as charts: losses, figures, teacher forcing, learning rates, time.

Free of torch and matplotlib.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from cascadezoo.model_folder.reproduction import metric_texts
from cascadezoo.report.charts import Axis, Band, Chart, Point, Series, smooth, thin
from cascadezoo.report.course import Course, Line
from cascadezoo.report.recorded_metrics import Recorded

__all__ = ["axis_label", "course_charts", "recorded_charts"]

_SMOOTH_FROM = 60


def axis_label(metric: str) -> str:
    """The label of a metric's axis: ``KID x 1000``."""
    texts = metric_texts(metric)
    return texts.title if texts.scale == 1.0 else f"{texts.title} x {texts.scale:g}"


def course_charts(course: Course) -> list[Chart]:
    """Return the charts of a training, at most one for each recorded quantity.

    Losses with many values are smoothed, with the raw values pale behind them.
    """
    bands = [Band(p.name, p.start, p.end) for p in course.phases if p.end > p.start]
    across = Axis("training step", zero=True)
    charts = []
    if course.losses:
        series = [one for named in _losses(course.losses) for one in named]
        series.sort(key=lambda one: not one.faint)  # raw values lie behind all lines
        note = "" if len(course.phases) < 2 else "Shading separates the phases."
        charts.append(Chart("Losses", across, Axis("loss", log=True), series, note, bands))
    charts += _figures(course, across, bands)
    if course.forcing:
        up = Axis("probability of the true image", low=0.0, high=1.05)
        series = _lines("", course.forcing, 0)
        charts.append(Chart("Teacher forcing", across, up, series, bands=bands))
    if course.rates:
        up = Axis("learning rate", zero=True)
        charts.append(Chart("Learning rates", across, up, _rates(course), bands=bands))
    if course.epochs:
        up = Axis("seconds", zero=True)
        series = _lines("", course.epochs, 0)
        charts.append(Chart("Time of each epoch", across, up, series, bands=bands))
    return charts


def recorded_charts(recorded: Recorded) -> list[Chart]:
    """Return the charts of the figures in metrics.json that were measured during training."""
    rows: dict[str, dict[str, list[Point]]] = {}
    for one in recorded.course:
        figure = one.figure
        scale = metric_texts(figure.metric).scale
        std = None if figure.std is None else figure.std * scale
        point = Point(one.step, figure.value * scale, std)
        rows.setdefault(figure.metric, {}).setdefault(figure.name, []).append(point)
    across = Axis("training step", zero=True)
    return [_figure_chart(metric, named, across, []) for metric, named in rows.items()]


def _points(line: Line) -> list[Point]:
    return [Point(float(x), y) for x, y in zip(line.steps, line.values, strict=True)]


def _lines(name: str, lines: Mapping[int, Line], style: int) -> list[Series]:
    """Return a line for each phase, all in one style."""
    return [Series(name, thin(_points(line)), joined=True, style=style) for line in lines.values()]


def _losses(losses: Mapping[str, Mapping[int, Line]]) -> Iterator[list[Series]]:
    for style, (name, lines) in enumerate(losses.items()):
        for line in lines.values():
            points = _points(line)
            seen = [p for p in points if 0 < p.y < math.inf]
            if len(seen) < _SMOOTH_FROM:
                yield [Series(name, points, joined=True, style=style)]
                continue
            # If some points cannot be drawn, the chart receives all points and counts those.
            pale = thin(points) if len(seen) == len(points) else points
            raw = Series(name, pale, joined=True, style=style, faint=True)
            yield [raw, Series(name, thin(smooth(seen)), joined=True, style=style)]


def _rates(course: Course) -> list[Series]:
    """Return one line for all stages with equal rates, in the colour of the first stage's loss."""
    groups: list[list[str]] = []
    for name, lines in course.rates.items():
        same = [group for group in groups if course.rates[group[0]] == lines]
        if same:
            same[0].append(name)
        else:
            groups.append([name])
    styles: dict[str, int] = {}
    for style, name in enumerate([*course.losses, *course.rates]):
        styles.setdefault(name.partition(".")[0], style)
    return [
        series
        for group in groups
        for series in _lines(
            ", ".join(group), course.rates[group[0]], styles[group[0].partition(".")[0]]
        )
    ]


def _figures(course: Course, across: Axis, bands: list[Band]) -> list[Chart]:
    """Return a chart for each metric, with a line for each figure's name."""
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
