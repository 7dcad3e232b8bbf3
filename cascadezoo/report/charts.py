"""What a plot shows, without how it is drawn.

:mod:`.charts_svg` draws it for pages, :mod:`.charts_png` for files.

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
"""Numbers beyond it are not drawn: their squares leave what a float can hold."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a chart.

    Args:
        label: what is measured, with its unit.
        log: logarithmic; what is not above 0 cannot be drawn.
        zero: begin at 0.
        low: the lower end; None takes it from the points. A logarithmic axis is extended to it.
        high: the upper end; None takes it from the points. A logarithmic axis is extended to it.
        names: names of the places 0, 1, 2 and so on, for an axis of categories.
    """

    label: str
    log: bool = False
    zero: bool = False
    low: float | None = None
    high: float | None = None
    names: Sequence[str] = ()

    def tick(self, value: float) -> str:
        """What stands at a tick: a short number, or the name of the place."""
        place = round(value)
        if not self.names:
            return short(value)
        return self.names[place] if 0 <= place < len(self.names) else ""


@dataclass(frozen=True, slots=True)
class Point:
    """A point, with the spread of its ``y`` and a name where it has one."""

    x: float
    y: float
    spread: float | None = None
    label: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one colour and one kind of mark.

    Args:
        name: for the legend.
        points: in the order in which they are joined.
        joined: by a line.
        style: the number of its colour; None takes its place among the series. Series of one
            style are one entry of the legend.
        faint: draw it pale, without an entry in the legend: raw values behind a summary.
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
        title: what it shows.
        x: from left to right.
        y: from bottom to top.
        series: what is drawn.
        note: below it.
        bands: spans of ``x`` to shade.
        labelled: write the points' names beside them, where there is room.
        cloud: many points that need no tooltips: small and half transparent.
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
        """The series with their styles set, without points that cannot be drawn."""
        rows = []
        for number, series in enumerate(self.series):
            points = [p for p in series.points if _fits(p.x, self.x) and _fits(p.y, self.y)]
            style = number if series.style is None else series.style
            if points:
                rows.append(replace(series, points=points, style=style))
        return rows

    @property
    def left_out(self) -> int:
        """How many points cannot be drawn: they are not finite, or not above 0 on a log axis."""
        return sum(len(s.points) for s in self.series) - sum(len(s.points) for s in self.drawn())

    def scales(self) -> tuple[Scale, Scale]:
        """The scales of both axes, from the points that are drawn."""
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
        title: what it shows.
        label: of the axis, with its unit.
        names: of the bars of a group, for the legend.
        groups: name and values of each group, as many as there are names; None for a bar that is
            not there.
        note: below it.
    """

    title: str
    label: str
    names: Sequence[str]
    groups: Sequence[tuple[str, Sequence[float | None]]]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Scale:
    """From a number to its place on an axis.

    Args:
        low: what stands at 0.
        high: what stands at 1.
        log: logarithmic.
        ticks: the numbers to mark.
    """

    low: float
    high: float
    log: bool = False
    ticks: Sequence[float] = field(default_factory=tuple)

    def place(self, value: float) -> float:
        """Where a number stands, from 0 to 1 between the ends."""
        if self.log:
            low, high = math.log(self.low), math.log(self.high)
            return (math.log(value) - low) / (high - low)
        return (value - self.low) / (self.high - self.low)


def scale_for(values: Iterable[float], axis: Axis, *, tight: bool = False) -> Scale:
    """A scale that holds all values, with a little room and round ticks.

    Args:
        values: finite, and above 0 on a logarithmic axis; none give a scale from 0 to 1.
        axis: what is asked of it.
        tight: no room at the ends.
    """
    if axis.names:
        places = tuple(map(float, range(len(axis.names))))
        return Scale(-0.5, len(axis.names) - 0.5, ticks=places)
    rows = list(values)
    if axis.log:
        given = [end for end in (axis.low, axis.high) if end is not None and end > 0]
        return _log_scale([*rows, *given] or [1.0, 10.0], tight)
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
    room = 0.0 if tight else (high - low) * 0.06
    low = low if low == 0 or axis.low is not None else low - room
    high = high if axis.high is not None else high + room
    return Scale(low, high, ticks=_ticks(low, high))


def _log_scale(values: list[float], tight: bool) -> Scale:
    low, high = min(values), max(values)
    if high < low * 1.5:
        low, high = low / 1.5, high * 1.5
    room = 1.0 if tight else (high / low) ** 0.06
    low, high = max(low / room, 1e-300), high * room
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = max(1, (last - first) // 6)
    decades = last - first
    steps: tuple[int, ...] = (1,) if decades > 3 else (1, 3) if decades > 2 else (1, 2, 5)
    ticks = [s * 10.0**p for p in range(first, last + 1, every) for s in steps]
    shown = tuple(t for t in ticks if low <= t <= high)
    if len(shown) < 3 and decades < 3:
        return Scale(low, high, log=True, ticks=_ticks(low, high))
    return Scale(low, high, log=True, ticks=shown or (low, high))


def _ticks(low: float, high: float, wanted: int = 5) -> tuple[float, ...]:
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return tuple(i * step for i in range(first, min(last, first + 20) + 1))


def short(value: float) -> str:
    """A tick's number.

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
    """At most so many points: neighbours are put together at their means.

    Args:
        points: in order; those with spread or name are better not thinned.
        most: at least 1.
    """
    if len(points) <= most:
        return list(points)
    made = []
    for place in range(most):
        part = points[place * len(points) // most : (place + 1) * len(points) // most]
        count = len(part)
        made.append(Point(sum(p.x for p in part) / count, sum(p.y for p in part) / count))
    return made


def smooth(points: Sequence[Point]) -> list[Point]:
    """A running geometric mean over about a fifteenth of the points.

    Args:
        points: in order, with ``y`` above 0.
    """
    reach = max(1, len(points) // 30)
    sums = [0.0]
    for point in points:
        sums.append(sums[-1] + math.log(point.y))
    made = []
    for place, point in enumerate(points):
        low, high = max(0, place - reach), min(len(points), place + reach + 1)
        made.append(replace(point, y=math.exp((sums[high] - sums[low]) / (high - low))))
    return made


def _fits(value: float, axis: Axis) -> bool:
    return math.isfinite(value) and abs(value) < LARGEST and (value > 1e-100 or not axis.log)
