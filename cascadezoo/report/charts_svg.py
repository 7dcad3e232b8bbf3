"""Plots as small SVG with colours from the page's style: light, dark and print.

Colours are Okabe and Ito's (2008), darkened or lightened to 3:1 against the paper; series differ
in marks and dashes too. Free of torch and matplotlib.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from cascadezoo.report.charts import Axis, Bars, Chart, Point, Scale, Series, scale_for, short
from cascadezoo.report.page_templates import environment
from cascadezoo.util.numbers import page_number as number
from cascadezoo.util.numbers import page_spread as spread

__all__ = ["draw_bars", "draw_chart", "draw_plots"]

WIDTH, WIDE, HEIGHT = 440.0, 920.0, 290.0
"""Sizes in pixels; ``WIDE`` is the width of a chart that fills the page."""

LEFT, RIGHT, TOP, BOTTOM = 58.0, 20.0, 14.0, 48.0
COLOURS = 7
_CORNERS = {
    1: ((-3.6, -3.6), (3.6, -3.6), (3.6, 3.6), (-3.6, 3.6)),
    2: ((0.0, -4.8), (4.6, 3.6), (-4.6, 3.6)),
    3: ((0.0, -5.2), (5.2, 0.0), (0.0, 5.2), (-5.2, 0.0)),
    4: ((0.0, 4.8), (4.6, -3.6), (-4.6, -3.6)),
}
"""The corners of the marks by style modulo 5; style 0 is a circle."""
DASHES = (None, "7 4", "2 4", "9 3 2 3")
_LETTER = 6.2
_LINE = 13.0
_MARKED = 40
"""Lines with more points have no marks."""


@dataclass(frozen=True, slots=True)
class _Shape:
    """An element of an SVG.

    Args:
        tag: the element's name.
        attributes: numbers and constants of this module, never untrusted text.
        text: its content.
        title: its tooltip.
    """

    tag: str
    attributes: Mapping[str, str | None]
    text: str = ""
    title: str | None = None


@dataclass(frozen=True, slots=True)
class _Drawing:
    """The shapes of an SVG; ``kind`` is ``narrow`` or ``wide`` if the figure has both."""

    width: str
    height: str
    shapes: Sequence[_Shape]
    kind: str = ""


def draw_plots(plots: Sequence[Chart | Bars]) -> list[Markup]:
    """Draw plots in two columns; the last of an odd number has the full width."""
    drawn = []
    for place, plot in enumerate(plots):
        wide = place == len(plots) - 1 and place % 2 == 0
        draw = (
            draw_chart(plot, wide=wide) if isinstance(plot, Chart) else draw_bars(plot, wide=wide)
        )
        drawn.append(draw)
    return drawn


def draw_chart(chart: Chart, *, wide: bool = False) -> Markup:
    """Draw a chart with its title, legend and note.

    Args:
        chart: the chart.
        wide: add a drawing of the page's full width. The page's style shows the drawing that
            fits the screen.
    """
    series = chart.drawn()
    if not series:
        return _figure(chart.title)
    solid = [one for one in series if not one.faint]
    count = sum(len(one.points) for one in solid)
    description = (
        f"{chart.y.label} against {chart.x.label}; {count} point{'' if count == 1 else 's'}"
        f" of {', '.join(dict.fromkeys(one.name for one in solid))}"
    )
    note = chart.note
    if chart.left_out:
        note = f"{note} {chart.left_out} points are not finite or not above 0 and are omitted."
    drawings = _drawings(lambda width: _chart_shapes(chart, series, width), HEIGHT, wide)
    return _figure(chart.title, description, drawings, _legend(solid), note.strip())


def _chart_shapes(chart: Chart, series: Sequence[Series], width: float) -> list[_Shape]:
    across, up = chart.scales()
    longest = max((len(short(tick)) for tick in up.ticks), default=0)
    left = max(LEFT, 29.0 + longest * _LETTER)  # the axis label is beside its ticks
    top = TOP + (14.0 if chart.bands else 0.0)
    frame = _Frame(across, up, width=width, left=left, top=top)
    shapes = [*_bands(chart, frame), *_axes(frame, chart.x, chart.y)]
    draw = _cloud if chart.cloud else _series
    shapes += [shape for one in series for shape in draw(one, frame)]
    if chart.labelled:
        shapes += _names(series, frame)
    return shapes


def draw_bars(bars: Bars, *, wide: bool = False) -> Markup:
    """Draw bars with their title, legend and note.

    Args:
        bars: the bars.
        wide: see :func:`draw_chart`.
    """
    known = [v for _, row in bars.groups for v in row if v is not None and abs(v) < 1e100]
    if not known:
        return _figure(bars.title)
    thick, gap = 15.0, 12.0
    tall = len(bars.names) * thick + gap
    height = TOP + tall * len(bars.groups) + BOTTOM
    axis = Axis(bars.label, zero=True)
    scale = scale_for([0.0, *known], axis)
    longest = max(len(name) for name, _ in bars.groups)
    left = min(150.0, max(LEFT, 14.0 + longest * _LETTER * 1.1))

    def shapes(width: float) -> list[_Shape]:
        frame = _Frame(scale, Scale(0.0, 1.0), width=width, left=left, height=height)
        drawn = _axes(frame, axis, None)
        for place, (name, row) in enumerate(bars.groups):
            top = TOP + place * tall + gap / 2
            middle = top + (tall - gap) / 2 + 4
            drawn.append(_text(left - 8, middle, _cut(name, int(left / _LETTER)), "end", "name"))
            for at, value in enumerate(row):
                if value is None or not abs(value) < 1e100:
                    continue
                ends = sorted((frame.across(0.0), frame.across(value)))
                drawn.append(
                    _shape(
                        "rect", f"{name}, {bars.names[at]}: {number(value)}",
                        x=ends[0], y=top + at * thick + 1, width=max(1.0, ends[1] - ends[0]),
                        height=thick - 2, kind=f"bar s{at % COLOURS}",
                    )
                )  # fmt: skip
        return drawn

    description = f"{bars.label} of {', '.join(name for name, _ in bars.groups)}"
    legend = _legend([Series(n, (), style=i) for i, n in enumerate(bars.names)], bars=True)
    return _figure(bars.title, description, _drawings(shapes, height, wide), legend, bars.note)


def _drawings(shapes: Callable[[float], list[_Shape]], height: float, wide: bool) -> list[_Drawing]:
    if not wide:
        return [_Drawing(_n(WIDTH), _n(height), shapes(WIDTH))]
    return [
        _Drawing(_n(width), _n(height), shapes(width), kind)
        for kind, width in (("narrow", WIDTH), ("wide", WIDE))
    ]


def _figure(
    title: str,
    description: str = "",
    drawings: Sequence[_Drawing] = (),
    legend: Sequence[tuple[str, Sequence[_Shape]]] = (),
    note: str = "",
) -> Markup:
    # Some screen readers read an SVG's <title>, all of them read aria-label.
    template = environment().get_template("chart.html.j2")
    text = template.render(
        title=title, description=description, drawings=drawings, legend=legend, note=note
    )
    return Markup(text)  # noqa: S704


class _Frame:
    """The position of the plot inside the picture."""

    def __init__(
        self,
        x: Scale,
        y: Scale,
        *,
        width: float = WIDTH,
        left: float = LEFT,
        top: float = TOP,
        height: float = HEIGHT,
    ) -> None:
        self.x, self.y = x, y
        self.left, self.right = left, width - RIGHT
        self.top, self.bottom = top, height - BOTTOM

    def across(self, value: float) -> float:
        return self.left + self.x.place(value) * (self.right - self.left)

    def up(self, value: float) -> float:
        place = min(1.0, max(0.0, self.y.place(value)))
        return self.bottom - place * (self.bottom - self.top)


def _axes(frame: _Frame, x: Axis, y: Axis | None) -> list[_Shape]:
    shapes = []
    room = (frame.right - frame.left) / max(1, len(x.names))
    for tick in frame.x.ticks:
        at = frame.across(tick)
        shapes.append(_line(at, frame.top, at, frame.bottom, "grid"))
        text = _cut(x.tick(tick), int(room / _LETTER))
        shapes.append(_text(at, frame.bottom + 17, text, "middle"))
    for tick in frame.y.ticks if y is not None else ():
        at = frame.up(tick)
        shapes.append(_line(frame.left, at, frame.right, at, "grid"))
        shapes.append(_text(frame.left - 7, at + 4, short(tick), "end"))
    shapes.append(_line(frame.left, frame.bottom, frame.right, frame.bottom, "axis"))
    shapes.append(_text((frame.left + frame.right) / 2, frame.bottom + 38, x.label, "middle"))
    if y is not None:
        middle = _n((frame.top + frame.bottom) / 2)
        turned = {"x": "13", "y": middle, "transform": f"rotate(-90 13 {middle})"}
        shapes.append(_Shape("text", {**turned, "text-anchor": "middle"}, y.label))
    return shapes


def _bands(chart: Chart, frame: _Frame) -> list[_Shape]:
    shapes = []
    for place, band in enumerate(chart.bands):
        left, right = frame.across(band.start), frame.across(band.end)
        name = band.name if len(band.name) * _LETTER < right - left else str(place + 1)
        if place % 2 == 0:
            shapes.append(
                _shape(
                    "rect", band.name, x=left, y=frame.top, width=max(0.0, right - left),
                    height=frame.bottom - frame.top, kind="band",
                )
            )  # fmt: skip
        shapes.append(_text((left + right) / 2, frame.top - 6, name, "middle", "name"))
    return shapes


def _series(series: Series, frame: _Frame) -> list[_Shape]:
    style = series.style or 0
    kind = _kind(series)
    shapes = []
    if series.joined and len(series.points) > 1:
        places = " ".join(f"{_n(frame.across(p.x))},{_n(frame.up(p.y))}" for p in series.points)
        dash = None if series.faint else _dash(style)
        line = {"points": places, "class": f"line {kind}", "stroke-dasharray": dash}
        shapes.append(_Shape("polyline", line, title=series.name))
    if series.joined and (series.faint or len(series.points) > _MARKED):
        return shapes
    for point in series.points:
        across, up = frame.across(point.x), frame.up(point.y)
        if point.spread:
            ends = [frame.up(_above(frame.y, point.y + d * point.spread)) for d in (-1, 1)]
            shapes.append(_line(across, ends[0], across, ends[1], f"whisker {kind}"))
            shapes += [_line(across - 3, e, across + 3, e, f"whisker {kind}") for e in ends]
        shapes.append(_mark(series, across, up, _tooltip(series, point)))
    return shapes


def _cloud(series: Series, frame: _Frame) -> list[_Shape]:
    """Draw all points of a series as one path, which keeps a thousand points small.

    The shapes are those of the marks in the legend.
    """
    style, size = series.style or 0, 2.4
    steps = []
    for point in series.points:
        x, y = frame.across(point.x), frame.up(point.y)
        if style % 5 == 0:
            arc = f"a{size} {size} 0 1 0 "
            steps.append(f"M{x - size:.1f} {y:.1f}{arc}{2 * size:.1f} 0{arc}{-2 * size:.1f} 0z")
        else:
            corners = [(x + 0.6 * a, y + 0.6 * b) for a, b in _CORNERS[style % 5]]
            steps.append("M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in corners) + "z")
    kind = "mark open" if style // COLOURS % 2 else "dot"
    path = {"d": "".join(steps), "class": f"{kind} s{style % COLOURS}"}
    return [_Shape("path", path, title=series.name)]


def _above(scale: Scale, value: float) -> float:
    """Limit a value to the range of a logarithmic scale."""
    return max(value, scale.low) if scale.log else value


def _tooltip(series: Series, point: Point) -> str:
    name = point.label or series.name
    return f"{name}: {spread(point.y, point.spread)} at {number(point.x)}"


def _dash(style: int) -> str | None:
    return DASHES[(style // COLOURS + style) % len(DASHES)]


def _kind(series: Series) -> str:
    return f"s{(series.style or 0) % COLOURS}" + (" faint" if series.faint else "")


def _mark(series: Series, x: float, y: float, title: str) -> _Shape:
    """Draw one of five shapes: filled for the first round of colours, open for the next."""
    style = series.style or 0
    kind = f"mark {_kind(series)}" + (" open" if style // COLOURS % 2 else "")
    shape = style % 5
    if shape == 0:
        return _shape("circle", title, cx=x, cy=y, r=4.0, kind=kind)
    if shape == 1:
        return _shape("rect", title, x=x - 3.6, y=y - 3.6, width=7.2, height=7.2, kind=kind)
    places = " ".join(f"{_n(x + a)},{_n(y + b)}" for a, b in _CORNERS[shape])
    return _Shape("polygon", {"points": places, "class": kind}, title=title)


def _names(series: Sequence[Series], frame: _Frame) -> list[_Shape]:
    """Write names beside their points if they cover neither a point nor another name."""
    spots = [(frame.across(p.x), frame.up(p.y), p.label) for s in series for p in s.points]
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y, _ in spots]
    shapes = []
    for x, y, name in spots:
        name = _cut(name, 30)
        wide = len(name) * _LETTER
        for left, base in (
            (x + 8, y + 4),
            (x - 8 - wide, y + 4),
            (x - wide / 2, y - 9),
            (x - wide / 2, y + 17),
        ):
            box = (left, base - _LINE + 3, left + wide, base + 2)
            inside = box[0] >= frame.left and box[2] <= frame.right + RIGHT and box[1] >= 0
            if name and inside and box[3] < frame.bottom and not any(_meet(box, b) for b in taken):
                taken.append(box)
                shapes.append(_text(left, base, name, "start", "name"))
                break
    return shapes


def _meet(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _legend(series: Sequence[Series], *, bars: bool = False) -> list[tuple[str, list[_Shape]]]:
    """The entries of the legend; empty for a single series without a name."""
    shown: dict[tuple[int, str], Series] = {}
    for one in series:
        shown.setdefault((one.style or 0, one.name), one)
    if not any(one.name for one in shown.values()) or (len(shown) == 1 and bars):
        return []
    rows = []
    for one in shown.values():
        kind = _kind(one)
        if bars:
            swatch = [
                _shape("rect", None, x=6.0, y=2.0, width=18.0, height=10.0, kind=f"bar {kind}")
            ]
        else:
            swatch = [_mark(one, 15.0, 7.0, one.name)]
            if one.joined:
                line = _line(1, 7, 29, 7, f"line {kind}", dash=_dash(one.style or 0))
                # A line of many points has no marks in the legend either.
                swatch = [line] if len(one.points) > _MARKED else [line, *swatch]
        rows.append((one.name, swatch))
    return rows


def _shape(tag: str, title: str | None, *, kind: str, **places: float) -> _Shape:
    return _Shape(tag, {**{k: _n(v) for k, v in places.items()}, "class": kind}, title=title)


def _line(
    x1: float, y1: float, x2: float, y2: float, kind: str, *, dash: str | None = None
) -> _Shape:
    ends = {"x1": _n(x1), "y1": _n(y1), "x2": _n(x2), "y2": _n(y2)}
    return _Shape("line", {**ends, "class": kind, "stroke-dasharray": dash})


def _text(x: float, y: float, text: str, anchor: str, kind: str | None = None) -> _Shape:
    return _Shape("text", {"x": _n(x), "y": _n(y), "text-anchor": anchor, "class": kind}, text)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: max(1, most - 3)]}..."


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
