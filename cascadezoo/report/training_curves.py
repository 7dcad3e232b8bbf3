"""Training curves as one PNG: losses, teacher forcing, learning rates, figures, time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from cascadezoo.report.course import Course, Line, PhaseSpan, read_course

__all__ = ["draw_curves"]

# Okabe and Ito 2008: told apart with any kind of colour vision. Yellow is too pale for a line.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
_SHADES = ("#F4F4F4", "#E6EBF0")
_INK = "#333333"
_WIDTH = 9.0
_DPI = 110
_SMOOTH_FROM = 60
_MOST_POINTS = 2000
_NARROW = 5.0

_Panel = tuple[float, Callable[[Axes], None]]


def draw_curves(source: Path | str | Iterable[Mapping[str, Any]], out_png: Path | str) -> Path:
    """Draw the course of a training.

    One panel each for losses (logarithmic), teacher forcing, learning rates, measured figures
    and time per epoch, as far as there is something to show; phases are shaded and named.

    Args:
        source: an ``events.jsonl``, or the events themselves.
        out_png: the picture to write.

    Returns:
        ``out_png``.

    Raises:
        RunFolderError: the events cannot be read.
    """
    course = read_course(source)
    panels = _panels(course)
    height = sum(share for share, _ in panels) or 1.0
    figure = Figure(figsize=(_WIDTH, 1.55 * height + 0.5), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    if not panels:
        figure.text(0.5, 0.5, "nothing logged yet", ha="center", va="center", color=_INK)
    else:
        shares = [share for share, _ in panels]
        stack = figure.subplots(
            len(panels), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": shares}
        )[:, 0]
        for axes, (_, draw) in zip(stack, panels, strict=True):
            _shade(axes, course.phases)
            draw(axes)
            _dress(axes)
        _name_phases(stack[0], course.phases)
        stack[-1].set_xlabel("training step", color=_INK)
    path = Path(out_png)
    figure.savefig(path, format="png", metadata={"Software": "cascadezoo"})
    return path


def _panels(course: Course) -> list[_Panel]:
    panels: list[_Panel] = []
    if any(_positive(line).steps for lines in course.losses.values() for line in lines.values()):
        panels.append((2.6, partial(_losses, course=course)))
    for metric in sorted({name.partition(".")[0] for name in course.figures}):
        panels.append((1.3, partial(_figures, course=course, metric=metric)))
    if course.forcing:
        panels.append((1.0, partial(_forcing, course=course)))
    if course.rates:
        panels.append((1.2, partial(_rates, course=course)))
    if course.epochs:
        panels.append((1.0, partial(_epochs, course=course)))
    return panels


def _losses(axes: Axes, course: Course) -> None:
    colours = _colours(course)
    kinds: dict[str, list[str]] = {}
    for name in course.losses:
        stage, _, loss = name.partition(".")
        kinds.setdefault(stage, []).append(loss)
    for name, lines in course.losses.items():
        stage, _, loss = name.partition(".")
        dash = _DASHES[kinds[stage].index(loss) % len(_DASHES)]
        label: str | None = f"{stage} {loss}".strip()
        for line in lines.values():
            seen = _positive(line)
            if not seen.steps:
                continue
            if len(seen.steps) >= _SMOOTH_FROM:
                raw = _thin(seen)
                axes.plot(raw.steps, raw.values, color=colours[stage], alpha=0.18, linewidth=0.7)
                seen = _thin(_smooth(seen))
            _plot(axes, seen, colours[stage], label, dash)
            label = None
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    few = high / low < _NARROW
    axes.yaxis.set_major_locator(MaxNLocator(5) if few else LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel("loss", color=_INK)


def _figures(axes: Axes, course: Course, metric: str) -> None:
    scale = 1000 if metric == "kid" else 1
    names = [name for name in sorted(course.figures) if name.partition(".")[0] == metric]
    for number, name in enumerate(names):
        points = course.figures[name]
        axes.errorbar(
            [step for step, _, _ in points],
            [value * scale for _, value, _ in points],
            [(std or 0.0) * scale for _, _, std in points],
            label=name,
            color=_COLOURS[number % len(_COLOURS)],
            marker="o",
            markersize=4,
            linewidth=1.4,
            elinewidth=1.0,
            capsize=2.5,
        )
    axes.set_ylabel("KID x 1000" if metric == "kid" else metric, color=_INK)
    if all(value > 0 for name in names for _, value, _ in course.figures[name]):
        axes.set_ylim(bottom=0)


def _forcing(axes: Axes, course: Course) -> None:
    for line in course.forcing.values():
        _plot(axes, _thin(line), _COLOURS[0], None)
    axes.set_ylim(-0.06, 1.06)
    axes.set_yticks([0, 0.5, 1])
    axes.set_ylabel("teacher\nforcing", color=_INK)


def _rates(axes: Axes, course: Course) -> None:
    colours = _colours(course)
    for number, stages in enumerate(_alike(course.rates)):
        label: str | None = ", ".join(stages)
        for line in course.rates[stages[0]].values():
            dash = _DASHES[number % len(_DASHES)]
            # A group's rate, `stage.group`, has the colour of its stage.
            colour = colours[stages[0].partition(".")[0]]
            _plot(axes, _thin(line), colour, label, dash)
            label = None
    axes.set_ylim(bottom=0)
    axes.set_ylabel("learning\nrate", color=_INK)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))


def _epochs(axes: Axes, course: Course) -> None:
    for line in course.epochs.values():
        axes.plot(line.steps, line.values, color=_COLOURS[0], marker="o", markersize=3, lw=1.0)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("seconds\nan epoch", color=_INK)


def _plot(axes: Axes, line: Line, colour: str, label: str | None, dash: object = "-") -> None:
    axes.plot(
        line.steps,
        line.values,
        color=colour,
        label=label,
        linestyle=dash,
        linewidth=1.6,
        marker="o" if len(line.steps) < 3 else None,
        markersize=3.5,
    )


def _dress(axes: Axes) -> None:
    axes.grid(axis="y", color="white", linewidth=1.0)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(colors=_INK, labelsize=8, length=2)
    axes.yaxis.label.set_fontsize(9)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=9, steps=[1, 2, 5, 10], integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.margins(x=0.01)
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.legend(
            handles,
            labels,
            loc="center left",
            bbox_to_anchor=(1.0, 0.5),
            frameon=False,
            fontsize=8,
            handlelength=2.6,
        )


def _shade(axes: Axes, phases: list[PhaseSpan]) -> None:
    for number, phase in enumerate(phases):
        axes.axvspan(phase.start, phase.end, color=_SHADES[number % 2], linewidth=0, zorder=0)


def _name_phases(axes: Axes, phases: list[PhaseSpan]) -> None:
    """Write each phase's name above its span, or its number where the name has no room."""
    total = max((phase.end for phase in phases), default=0) - min(
        (phase.start for phase in phases), default=0
    )
    for phase in phases:
        share = (phase.end - phase.start) / total if total else 1.0
        room = len(phase.name) * 0.012 < share
        axes.annotate(
            phase.name if room else str(phase.index + 1),
            ((phase.start + phase.end) / 2, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=9,
            color=_INK,
        )


def _colours(course: Course) -> dict[str, str]:
    """One colour a stage, the same in every panel, in the order in which stages appear."""
    stages = [name.partition(".")[0] for name in (*course.losses, *course.rates)]
    return {s: _COLOURS[i % len(_COLOURS)] for i, s in enumerate(dict.fromkeys(stages))}


def _alike(rates: dict[str, dict[int, Line]]) -> list[list[str]]:
    """Stages grouped by their course, so that one line stands for all that share it."""
    groups: list[list[str]] = []
    for stage, lines in rates.items():
        same = [group for group in groups if rates[group[0]] == lines]
        if same:
            same[0].append(stage)
        else:
            groups.append([stage])
    return groups


def _positive(line: Line) -> Line:
    """The points that a logarithmic axis can show."""
    points = [
        (step, value)
        for step, value in zip(line.steps, line.values, strict=True)
        if math.isfinite(value) and value > 0
    ]
    return Line([step for step, _ in points], [value for _, value in points])


def _smooth(line: Line) -> Line:
    """A running mean of logarithms over about a fifteenth of the line."""
    reach = max(1, len(line.values) // 30)
    sums = [0.0]
    for value in line.values:
        sums.append(sums[-1] + math.log(value))
    count = len(line.values)
    means = []
    for place in range(count):
        low, high = max(0, place - reach), min(count, place + reach + 1)
        means.append(math.exp((sums[high] - sums[low]) / (high - low)))
    return Line(list(line.steps), means)


def _thin(line: Line) -> Line:
    """At most some thousands of points, evenly taken, the last one among them."""
    every = -(-len(line.steps) // _MOST_POINTS)
    if every <= 1:
        return line
    kept = [*range(0, len(line.steps) - 1, every), len(line.steps) - 1]
    return Line([line.steps[i] for i in kept], [line.values[i] for i in kept])
