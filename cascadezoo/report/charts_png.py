"""Charts as PNG files, for Markdown: what :mod:`.charts_svg` draws, by matplotlib."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from cascadezoo.report.charts import Chart, Scale, Series, short
from cascadezoo.util.files import write_atomically

__all__ = ["write_png"]

COLOURS = ("#0072B2", "#C65200", "#00805D", "#A8457F", "#8F6400", "#2B7FB0", "#2C2C2C")
_MARKS = ("o", "s", "^", "D", "v")
_DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
_INK = "#333333"
_NAMED = 14


def write_png(charts: Sequence[Chart], path: Path) -> Path:
    """Draw charts side by side, at most two in a row.

    Args:
        charts: at least one; one without points says so.
        path: of the file; its folder must be there.

    Returns:
        ``path``.
    """
    columns = min(2, len(charts))
    rows = math.ceil(len(charts) / columns)
    figure = Figure(figsize=(5.4 * columns, 3.9 * rows), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    places = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, chart in zip(places, charts, strict=False):
        _draw(axes, chart)
    for axes in places[len(charts) :]:
        axes.set_visible(False)
    handles: dict[str, Artist] = {}
    for axes in places:
        handles |= {n: h for h, n in zip(*axes.get_legend_handles_labels(), strict=True) if n}
    if handles:
        figure.legend(
            list(handles.values()), list(handles), loc="outside lower center", frameon=False,
            fontsize=8, handlelength=2.6, ncols=min(len(handles), 3 * columns),
        )  # fmt: skip
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": "cascadezoo"})
    write_atomically(path, file.getvalue())
    return path


def _draw(axes: Axes, chart: Chart) -> None:
    axes.set_title(_text(chart.title), fontsize=10, color=_INK, loc="left", fontweight="bold")
    series = chart.drawn()
    if not series:
        axes.text(0.5, 0.5, "nothing was recorded", ha="center", va="center", color=_INK)
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
    for axis, scale, label in (
        (axes.xaxis, across, chart.x.label),
        (axes.yaxis, up, chart.y.label),
    ):
        axis.set_major_locator(FixedLocator(list(scale.ticks)))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        axis.set_label_text(_text(label), color=_INK, fontsize=9)
    axes.set_xlim(*_ends(across))
    axes.set_ylim(*_ends(up))
    axes.grid(color="#E4E4E0", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_INK, labelsize=8, length=2)


def _series(axes: Axes, series: Series) -> None:
    style = series.style or 0
    axes.errorbar(
        [p.x for p in series.points],
        [p.y for p in series.points],
        [p.spread or 0.0 for p in series.points],
        label=_text(series.name),
        color=COLOURS[style % len(COLOURS)],
        marker=_MARKS[style % len(_MARKS)] if len(series.points) <= 40 or not series.joined else "",
        markersize=4.5,
        markerfacecolor="white" if style // len(COLOURS) % 2 else None,
        linestyle=_DASHES[style % len(_DASHES)] if series.joined else "none",
        linewidth=1.4,
        elinewidth=1.0,
        capsize=2.0,
    )


def _ends(scale: Scale) -> tuple[float, float]:
    return scale.low, scale.high


def _text(text: str) -> str:
    """Text without matplotlib's markup."""
    return text.replace("\\", "").replace("$", r"\$")
