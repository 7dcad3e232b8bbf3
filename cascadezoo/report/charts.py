"""The content of plots, independent of the drawing.

:mod:`.charts_svg` draws them for pages, :mod:`.charts_png` for files.

Free of torch and matplotlib.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

__all__ = [
    "Axis",
    "Band",
    "Bars",
    "Chart",
    "Point",
    "Scale",
    "Series",
    "scale_for",
    "short",
    "smooth",
    "thin",
]

LARGEST = 1e100
"""Larger numbers are not drawn: their squares overflow a float."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a chart.

    Args:
        label: the quantity with its unit.
        log: logarithmic; only numbers above 0 can be drawn.
        zero: begin at 0.
        low: the lower end; None derives it from the points. A logarithmic axis is extended to it.
        high: the upper end; None derives it from the points. A logarithmic axis is extended to it.
        names: names of the positions 0, 1, 2 and so on, for an axis of categories.
    """

    label: str
    log: bool = False
    zero: bool = False
    low: float | None = None
    high: float | None = None
    names: Sequence[str] = ()

    def tick(self, value: float) -> str:
        """The label of a tick: a short number, or the name of the position."""
        if not self.names:
            return short(value)
        place = round(value)
        return self.names[place] if 0 <= place < len(self.names) else ""


@dataclass(frozen=True, slots=True)
class Point:
    """A point with an optional spread of its ``y`` and an optional name."""

    x: float
    y: float
    spread: float | None = None
    label: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one colour and one kind of mark.

    Args:
        name: its name in the legend.
        points: its points, in the order of the line.
        joined: whether a line joins the points.
        style: the number of its colour; None uses its position among the series. Series of one
            style share an entry in the legend.
        faint: draw it pale and without an entry in the legend, for raw values behind a summary.
    """

    name: str
    points: Sequence[Point]
    joined: bool = False
    style: int | None = None
    faint: bool = False


@dataclass(frozen=True, slots=True)
class Band:
    """A named span of the x axis, such as a phase."""

    name: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Chart:
    """Points or lines over two axes.

    Args:
        title: its title.
        x: the horizontal axis.
        y: the vertical axis.
        series: the series to draw.
        note: text below the chart.
        bands: spans of ``x`` to shade.
        labelled: write the names of points beside them if they fit.
        cloud: draw many points without tooltips, small and half transparent.
    """

    title: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    note: str = ""
    bands: Sequence[Band] = ()
    labelled: bool = False
    cloud: bool = False

    def drawn(self) -> list[Series]:
        """The series with styles, without points that cannot be drawn."""
        rows = []
        for number, series in enumerate(self.series):
            points = [p for p in series.points if _fits(p.x, self.x) and _fits(p.y, self.y)]
            style = number if series.style is None else series.style
            if points:
                rows.append(replace(series, points=points, style=style))
        return rows

    @property
    def left_out(self) -> int:
        """Number of points that cannot be drawn: not finite, or not above 0 on a log axis."""
        return sum(len(s.points) for s in self.series) - sum(len(s.points) for s in self.drawn())

    def scales(self) -> tuple[Scale, Scale]:
        """The scales of both axes, derived from the drawn points."""
        points = [point for series in self.drawn() for point in series.points]
        across = [p.x for p in points] + [e for b in self.bands for e in (b.start, b.end)]
        up = [p.y for p in points]
        reach = [p.y + (p.spread or 0.0) for p in points]
        down = [p.y - (p.spread or 0.0) for p in points]
        ends = [v for v in (*reach, *down) if _fits(v, self.y)]
        tight = bool(self.bands) or any(s.joined for s in self.series)
        return scale_for(across, self.x, tight=tight), scale_for([*up, *ends], self.y)


@dataclass(frozen=True, slots=True)
class Bars:
    """Horizontal bars in groups.

    Args:
        title: its title.
        label: the quantity with its unit.
        names: names of the bars of a group, for the legend.
        groups: name of each group and one value for each bar; None for a missing bar.
        note: text below the bars.
    """

    title: str
    label: str
    names: Sequence[str]
    groups: Sequence[tuple[str, Sequence[float | None]]]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps numbers to positions on an axis.

    Args:
        low: the number at position 0.
        high: the number at position 1.
        log: logarithmic.
        ticks: the numbers to mark.
    """

    low: float
    high: float
    log: bool = False
    ticks: Sequence[float] = field(default_factory=tuple)

    def place(self, value: float) -> float:
        """The position of a number: 0 to 1 between the ends."""
        if self.log:
            low, high = math.log(self.low), math.log(self.high)
            return (math.log(value) - low) / (high - low)
        return (value - self.low) / (self.high - self.low)


def scale_for(values: Iterable[float], axis: Axis, *, tight: bool = False) -> Scale:
    """Return a scale that contains all values, with a margin and round ticks.

    Args:
        values: finite numbers, above 0 on a logarithmic axis; without values, 0 to 1.
        axis: the requirements of the axis.
        tight: no margin at the ends.
    """
    if axis.names:
        places = tuple(map(float, range(len(axis.names))))
        return Scale(-0.5, len(axis.names) - 0.5, ticks=places)
    rows = list(values)
    if axis.log:
        ends = [end for end in (axis.low, axis.high) if end is not None and end > 0]
        return _log_scale([*rows, *ends] or [1.0, 10.0], tight)
    low, high = (min(rows), max(rows)) if rows else (0.0, 1.0)
    low = 0.0 if axis.zero and low >= 0 else low
    if axis.low is not None:
        low = axis.low
    if axis.high is not None:
        high = axis.high
    if high <= low:
        middle, reach = low, abs(low) * 0.5 or 0.5
        low, high = middle - reach, middle + reach
        low = 0.0 if axis.zero and middle >= 0 else low
    margin = 0.0 if tight else (high - low) * 0.06
    low = low if low == 0 or axis.low is not None else low - margin
    high = high if axis.high is not None else high + margin
    return Scale(low, high, ticks=_ticks(low, high))


def _log_scale(values: list[float], tight: bool) -> Scale:
    low, high = min(values), max(values)
    if high < low * 1.5:
        low, high = low / 1.5, high * 1.5
    margin = 1.0 if tight else (high / low) ** 0.06
    low, high = max(low / margin, 1e-300), high * margin
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = max(1, (last - first) // 6)
    decades = last - first
    steps: tuple[int, ...] = (1,) if decades > 3 else (1, 3) if decades > 2 else (1, 2, 5)
    ticks = [s * 10.0**p for p in range(first, last + 1, every) for s in steps]
    shown = tuple(t for t in ticks if low <= t <= high)
    if len(shown) < 3 and decades < 3:
        return Scale(low, high, log=True, ticks=_ticks(low, high))
    return Scale(low, high, log=True, ticks=shown or (low, high))


def _ticks(low: float, high: float, count: int = 5) -> tuple[float, ...]:
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return tuple(i * step for i in range(first, min(last, first + 20) + 1))


def short(value: float) -> str:
    """Format the number of a tick.

    >>> short(0.0), short(1500000.0), short(20000.0), short(0.05), short(3e-7)
    ('0', '1.5 M', '20 k', '0.05', '3e-07')
    """
    size = abs(value)
    for unit, name in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e4, " k")):
        if size >= unit:
            base = 1e3 if name == " k" else unit
            return f"{value / base:.4g}{name}"
    return f"{0.0 if size < 1e-300 else value:.4g}"


def thin(points: Sequence[Point], most: int = 240) -> list[Point]:
    """Reduce points to at most ``most`` by averaging neighbours.

    Args:
        points: points in order; their spreads and names are lost.
        most: at least 1.
    """
    if len(points) <= most:
        return list(points)
    means = []
    for place in range(most):
        part = points[place * len(points) // most : (place + 1) * len(points) // most]
        count = len(part)
        means.append(Point(sum(p.x for p in part) / count, sum(p.y for p in part) / count))
    return means


def smooth(points: Sequence[Point]) -> list[Point]:
    """Return a running geometric mean over about a fifteenth of the points.

    Args:
        points: points in order, with ``y`` above 0.
    """
    reach = max(1, len(points) // 30)
    sums = [0.0]
    for point in points:
        sums.append(sums[-1] + math.log(point.y))
    means = []
    for place, point in enumerate(points):
        low, high = max(0, place - reach), min(len(points), place + reach + 1)
        means.append(replace(point, y=math.exp((sums[high] - sums[low]) / (high - low))))
    return means


def _fits(value: float, axis: Axis) -> bool:
    return math.isfinite(value) and abs(value) < LARGEST and (value > 1e-100 or not axis.log)
