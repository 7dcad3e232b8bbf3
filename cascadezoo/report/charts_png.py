"""Charts as PNG files, drawn by matplotlib; :mod:`.charts_svg` draws them for pages."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from cascadezoo.report.charts import Axis, Chart, Scale, Series
from cascadezoo.report.course import read_course
from cascadezoo.report.course_charts import course_charts
from cascadezoo.util.files import write_atomically

__all__ = ["draw_curves", "draw_png", "write_png"]

COLOURS = ("#0072B2", "#C65200", "#00805D", "#A8457F", "#8F6400", "#2B7FB0", "#2C2C2C")
_MARKS = ("o", "s", "^", "D", "v")
_DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
_INK = "#333333"
_BAND = "#F1F1EE"
_NAMED = 14
_LETTER = 0.012
"""Width of a letter relative to the width of a chart."""


def write_png(
    charts: Sequence[Chart],
    path: Path,
    *,
    columns: int = 2,
    size: tuple[float, float] = (5.4, 3.9),
    title: str = "",
) -> Path:
    """Write charts as a PNG file; see :func:`draw_png`.

    Args:
        charts: see :func:`draw_png`.
        path: the file, replaced atomically; its folder must exist.
        columns: see :func:`draw_png`.
        size: see :func:`draw_png`.
        title: see :func:`draw_png`.

    Returns:
        ``path``.
    """
    write_atomically(path, draw_png(charts, columns=columns, size=size, title=title))
    return path


def draw_curves(source: Path | str | Iterable[Mapping[str, Any]], out_png: Path | str) -> Path:
    """Draw the course of a training: the charts of a report, one below the other.

    Args:
        source: an ``events.jsonl``, or the events.
        out_png: the file to write.

    Returns:
        ``out_png``.

    Raises:
        RunFolderError: the events cannot be read.
    """
    charts = course_charts(read_course(source))
    empty = Chart("Training", Axis("training step"), Axis("loss"), [])
    return write_png(charts or [empty], Path(out_png), columns=1, size=(9.0, 2.5))


def draw_png(
    charts: Sequence[Chart],
    *,
    columns: int = 2,
    size: tuple[float, float] = (5.4, 3.9),
    title: str = "",
) -> bytes:
    """Draw charts side by side.

    Charts in several columns share one legend below; charts in one column have their own legends.

    Args:
        charts: at least one.
        columns: largest number of charts in a row.
        size: width and height of each chart in inches, at 130 pixels per inch.
        title: title above all charts.

    Returns:
        A PNG file.
    """
    columns = min(columns, len(charts))
    rows = math.ceil(len(charts) / columns)
    across, up = size
    figure = Figure(figsize=(across * columns, up * rows), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(_text(title), fontsize=10, color=_INK)
    places = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, chart in zip(places, charts, strict=False):
        _draw(axes, chart)
    for axes in places[len(charts) :]:
        axes.set_visible(False)
    _legends(figure, list(places), columns)
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": "cascadezoo"})
    return file.getvalue()


def _legends(figure: Figure, places: Sequence[Axes], columns: int) -> None:
    named = []
    for axes in places:
        handles, labels = axes.get_legend_handles_labels()
        named.append({n: h for h, n in zip(handles, labels, strict=True) if n})
    shared: dict[str, Artist] = {}
    for entries in named:
        shared |= entries
    if columns > 1 or len(named) == 1:
        if shared:
            figure.legend(
                list(shared.values()), list(shared), loc="outside lower center", frameon=False,
                fontsize=8, handlelength=2.6, ncols=min(len(shared), 3 * columns),
            )  # fmt: skip
        return
    for axes, entries in zip(places, named, strict=True):
        if entries:
            axes.legend(
                list(entries.values()), list(entries), loc="center left",
                bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8, handlelength=2.6,
            )  # fmt: skip


def _draw(axes: Axes, chart: Chart) -> None:
    above = 16 if chart.bands else 6
    axes.set_title(
        _text(chart.title), fontsize=10, color=_INK, loc="left", fontweight="bold", pad=above
    )
    series = chart.drawn()
    if not series:
        axes.text(0.5, 0.5, "no data", ha="center", va="center", color=_INK)
        axes.set_axis_off()
        return
    across, up = chart.scales()
    axes.set_xscale("log" if across.log else "linear")
    axes.set_yscale("log" if up.log else "linear")
    for one in series:
        _series(axes, one)
    if chart.labelled and sum(len(one.points) for one in series) <= _NAMED:
        for one in series:
            for point in one.points:
                axes.annotate(
                    _text(point.label), (point.x, point.y), xytext=(5, 3), fontsize=6.5,
                    textcoords="offset points", color=_INK,
                )  # fmt: skip
    for axis, scale, spec in ((axes.xaxis, across, chart.x), (axes.yaxis, up, chart.y)):
        axis.set_major_locator(FixedLocator(list(scale.ticks)))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(_formatter(spec))
        axis.set_label_text(_text(spec.label), color=_INK, fontsize=9)
    # The margin keeps marks at the ends of the axis complete.
    margin = 0.0 if across.log else 0.012 * (across.high - across.low)
    axes.set_xlim(across.low - margin, across.high + margin)
    axes.set_ylim(up.low, up.high)
    _bands(axes, chart, across)
    axes.grid(color="#E4E4E0", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_INK, labelsize=8, length=2)


def _bands(axes: Axes, chart: Chart, scale: Scale) -> None:
    """Shade every other span and write its name above it, or its number if the name is too long."""
    for place, band in enumerate(chart.bands):
        if place % 2 == 0:
            axes.axvspan(band.start, band.end, color=_BAND, linewidth=0, zorder=0)
        share = abs(scale.place(band.end) - scale.place(band.start))
        axes.annotate(
            _text(band.name if len(band.name) * _LETTER < share else str(place + 1)),
            ((band.start + band.end) / 2, 1.0),
            xycoords=("data", "axes fraction"), xytext=(0, 3), textcoords="offset points",
            ha="center", va="bottom", fontsize=8, color=_INK,
        )  # fmt: skip


def _series(axes: Axes, series: Series) -> None:
    style = series.style or 0
    spreads = [p.spread or 0.0 for p in series.points]
    # As in pages: long lines and pale lines have no marks.
    marked = not series.joined or (len(series.points) <= 40 and not series.faint)
    dash = "-" if series.faint else _DASHES[style % len(_DASHES)]
    axes.errorbar(
        [p.x for p in series.points],
        [p.y for p in series.points],
        spreads if any(spreads) else None,
        label="" if series.faint else _text(series.name),
        color=COLOURS[style % len(COLOURS)],
        alpha=0.25 if series.faint else None,
        marker=_MARKS[style % len(_MARKS)] if marked else "",
        markersize=4.5,
        markerfacecolor="white" if style // len(COLOURS) % 2 else None,
        linestyle=dash if series.joined else "none",
        linewidth=0.7 if series.faint else 1.4,
        elinewidth=1.0,
        capsize=2.0,
    )


def _formatter(axis: Axis) -> FuncFormatter:
    return FuncFormatter(lambda value, _: _text(axis.tick(value)))


def _text(text: str) -> str:
    """Text without matplotlib's markup."""
    return text.replace("\\", "").replace("$", r"\$")
