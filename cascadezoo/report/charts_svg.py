"""Plots as small SVG; colours come from the page's style and follow light, dark and print.

Colours are Okabe and Ito's (2008), darkened or lightened to 3:1 against the paper; series differ
in marks and dashes too. Free of torch and matplotlib.
"""

from __future__ import annotations

from collections.abc import Sequence

from cascadezoo.report.charts import Axis, Bars, Chart, Point, Scale, Series, scale_for, short
from cascadezoo.report.html import Markup, element, escape, number, spread

__all__ = ["draw_bars", "draw_chart"]

WIDTH, HEIGHT = 440.0, 290.0
LEFT, RIGHT, TOP, BOTTOM = 58.0, 20.0, 14.0, 48.0
COLOURS = 7
DASHES = (None, "7 4", "2 4", "9 3 2 3")
_LETTER = 6.2
_LINE = 13.0


def draw_chart(chart: Chart) -> Markup:
    """A chart with its title, legend and note."""
    series = chart.drawn()
    head = element("p", chart.title, class_="head")
    if not series:
        return element("figure", head, element("p", "Nothing was recorded.", class_="lacks"))
    across, up = chart.scales()
    frame = _Frame(across, up, top=TOP + (14.0 if chart.bands else 0.0))
    parts = [*_bands(chart, frame), *_axes(frame, chart.x.label, chart.y.label)]
    draw = _cloud if chart.cloud else _series
    parts += [part for one in series for part in draw(one, frame)]
    if chart.labelled:
        parts += _names(series, frame)
    count = sum(len(one.points) for one in series)
    told = (
        f"{chart.y.label} against {chart.x.label}; {count} point{'' if count == 1 else 's'}"
        f" of {', '.join(dict.fromkeys(one.name for one in series))}"
    )
    note = chart.note
    if chart.left_out:
        note = f"{note} {chart.left_out} points that are not finite or not above 0 are left out."
    below = element("figcaption", note.strip()) if note.strip() else ""
    return element("figure", head, _svg(chart.title, told, HEIGHT, parts), _legend(series), below)


def draw_bars(bars: Bars) -> Markup:
    """Bars with their title, legend and note."""
    head = element("p", bars.title, class_="head")
    known = [v for _, row in bars.groups for v in row if v is not None and abs(v) < 1e100]
    if not known:
        return element("figure", head, element("p", "Nothing was recorded.", class_="lacks"))
    thick, gap = 15.0, 12.0
    tall = len(bars.names) * thick + gap
    longest = max(len(name) for name, _ in bars.groups)
    left = min(150.0, max(LEFT, 14.0 + longest * _LETTER * 1.1))
    height = TOP + tall * len(bars.groups) + BOTTOM
    scale = scale_for([0.0, *known], Axis(bars.label, zero=True))
    frame = _Frame(scale, Scale(0.0, 1.0), left=left, height=height)
    parts = _axes(frame, bars.label, "")
    for place, (name, row) in enumerate(bars.groups):
        top = TOP + place * tall + gap / 2
        middle = top + (tall - gap) / 2 + 4
        parts.append(_text(left - 8, middle, _cut(name, int(left / _LETTER)), "end", "name"))
        for at, value in enumerate(row):
            if value is None or not abs(value) < 1e100:
                continue
            ends = sorted((frame.across(0.0), frame.across(value)))
            shape = element(
                "rect", element("title", f"{name}, {bars.names[at]}: {number(value)}"),
                x=_n(ends[0]), y=_n(top + at * thick + 1), width=_n(max(1.0, ends[1] - ends[0])),
                height=_n(thick - 2), class_=f"bar s{at % COLOURS}",
            )  # fmt: skip
            parts.append(shape)
    told = f"{bars.label} of {', '.join(name for name, _ in bars.groups)}"
    legend = _legend([Series(n, (), style=i) for i, n in enumerate(bars.names)], bars=True)
    below = element("figcaption", bars.note) if bars.note else ""
    return element("figure", head, _svg(bars.title, told, height, parts), legend, below)


class _Frame:
    """Where the plot lies inside the picture."""

    def __init__(
        self, x: Scale, y: Scale, *, left: float = LEFT, top: float = TOP, height: float = HEIGHT
    ) -> None:
        self.x, self.y = x, y
        self.left, self.right = left, WIDTH - RIGHT
        self.top, self.bottom = top, height - BOTTOM

    def across(self, value: float) -> float:
        return self.left + self.x.place(value) * (self.right - self.left)

    def up(self, value: float) -> float:
        place = min(1.0, max(0.0, self.y.place(value)))
        return self.bottom - place * (self.bottom - self.top)


def _svg(title: str, told: str, height: float, parts: Sequence[Markup]) -> Markup:
    # An SVG's <title> is its name to those who do not see it; aria-label names it in all readers.
    return element(
        "svg", element("title", title), element("desc", told), *parts,
        viewBox=f"0 0 {WIDTH:.0f} {height:.0f}", role="img", aria_label=f"{title}: {told}",
        class_="chart",
    )  # fmt: skip


def _axes(frame: _Frame, x: str, y: str) -> list[Markup]:
    parts = []
    for tick in frame.x.ticks:
        at = frame.across(tick)
        parts.append(_line(at, frame.top, at, frame.bottom, "grid"))
        parts.append(_text(at, frame.bottom + 17, short(tick), "middle"))
    for tick in frame.y.ticks if y else ():
        at = frame.up(tick)
        parts.append(_line(frame.left, at, frame.right, at, "grid"))
        parts.append(_text(frame.left - 7, at + 4, short(tick), "end"))
    parts.append(_line(frame.left, frame.bottom, frame.right, frame.bottom, "axis"))
    parts.append(_text((frame.left + frame.right) / 2, frame.bottom + 38, x, "middle"))
    if y:
        middle = (frame.top + frame.bottom) / 2
        turned = f"rotate(-90 13 {_n(middle)})"
        parts.append(
            element("text", y, x="13", y=_n(middle), text_anchor="middle", transform=turned)
        )
    return parts


def _bands(chart: Chart, frame: _Frame) -> list[Markup]:
    parts = []
    for place, band in enumerate(chart.bands):
        left, right = frame.across(band.start), frame.across(band.end)
        name = band.name if len(band.name) * _LETTER < right - left else str(place + 1)
        title = element("title", band.name)
        if place % 2 == 0:
            parts.append(
                element(
                    "rect", title, x=_n(left), y=_n(frame.top), width=_n(max(0.0, right - left)),
                    height=_n(frame.bottom - frame.top), class_="band",
                )
            )  # fmt: skip
        parts.append(_text((left + right) / 2, frame.top - 6, name, "middle", "name"))
    return parts


def _series(series: Series, frame: _Frame) -> list[Markup]:
    style = series.style or 0
    kind = f"s{style % COLOURS}"
    parts = []
    if series.joined and len(series.points) > 1:
        places = " ".join(f"{_n(frame.across(p.x))},{_n(frame.up(p.y))}" for p in series.points)
        parts.append(
            element(
                "polyline", element("title", series.name), points=places,
                class_=f"line {kind}", stroke_dasharray=_dash(style),
            )
        )  # fmt: skip
    if series.joined and len(series.points) > 40:
        return parts
    for point in series.points:
        across, up = frame.across(point.x), frame.up(point.y)
        if point.spread:
            ends = [frame.up(_above(frame.y, point.y + d * point.spread)) for d in (-1, 1)]
            parts.append(_line(across, ends[0], across, ends[1], f"whisker {kind}"))
            parts += [_line(across - 3, e, across + 3, e, f"whisker {kind}") for e in ends]
        parts.append(_mark(style, across, up, _told(series, point)))
    return parts


def _cloud(series: Series, frame: _Frame) -> list[Markup]:
    """All points of a series as one path, so that a thousand of them stay small."""
    style, size = series.style or 0, 2.4
    steps = []
    for point in series.points:
        x, y = frame.across(point.x), frame.up(point.y)
        if style % 2 == 0:
            arc = f"a{size} {size} 0 1 0 "
            steps.append(f"M{x - size:.1f} {y:.1f}{arc}{2 * size:.1f} 0{arc}{-2 * size:.1f} 0z")
        else:
            steps.append(f"M{x - 2.2:.1f} {y - 2.2:.1f}h4.4v4.4h-4.4z")
    path = Markup("".join(steps))
    return [
        element("path", element("title", series.name), d=path, class_=f"dot s{style % COLOURS}")
    ]


def _above(scale: Scale, value: float) -> float:
    """A value that a logarithmic scale can place."""
    return max(value, scale.low) if scale.log else value


def _told(series: Series, point: Point) -> str:
    name = point.label or series.name
    return f"{name}: {spread(point.y, point.spread)} at {number(point.x)}"


def _dash(style: int) -> str | None:
    return DASHES[(style // COLOURS + style) % len(DASHES)]


def _mark(style: int, x: float, y: float, title: str) -> Markup:
    """One of several shapes, filled for the first turn of the colours and open for the next."""
    told = element("title", title)
    kind = f"mark s{style % COLOURS}" + (" open" if style // COLOURS % 2 else "")
    shape = style % 5
    if shape == 0:
        return element("circle", told, cx=_n(x), cy=_n(y), r="4", class_=kind)
    if shape == 1:
        return element(
            "rect", told, x=_n(x - 3.6), y=_n(y - 3.6), width="7.2", height="7.2", class_=kind
        )
    corners = {
        2: ((0, -4.8), (4.6, 3.6), (-4.6, 3.6)),
        3: ((0, -5.2), (5.2, 0), (0, 5.2), (-5.2, 0)),
        4: ((0, 4.8), (4.6, -3.6), (-4.6, -3.6)),
    }[shape]
    places = " ".join(f"{_n(x + a)},{_n(y + b)}" for a, b in corners)
    return element("polygon", told, points=places, class_=kind)


def _names(series: Sequence[Series], frame: _Frame) -> list[Markup]:
    """Names beside their points, where they cover neither a point nor another name."""
    spots = [(frame.across(p.x), frame.up(p.y), p.label) for s in series for p in s.points]
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y, _ in spots]
    parts = []
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
                parts.append(_text(left, base, name, "start", "name"))
                break
    return parts


def _meet(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _legend(series: Sequence[Series], *, bars: bool = False) -> Markup:
    """What the colours mean; nothing where there is one of them and it has no name."""
    shown: dict[tuple[int, str], Series] = {}
    for one in series:
        shown.setdefault((one.style or 0, one.name), one)
    if not any(one.name for one in shown.values()) or (len(shown) == 1 and bars):
        return Markup("")
    rows = []
    for one in shown.values():
        style = one.style or 0
        kind = f"s{style % COLOURS}"
        if bars:
            swatch = [element("rect", x="6", y="2", width="18", height="10", class_=f"bar {kind}")]
        else:
            swatch = [_mark(style, 15.0, 7.0, one.name)]
            if one.joined:
                line = _line(1, 7, 29, 7, f"line {kind}", dash=_dash(style))
                # A line of many points has no marks, and none in the legend.
                swatch = [line] if len(one.points) > 40 else [line, *swatch]
        drawn = element("svg", *swatch, viewBox="0 0 30 14", aria_hidden="true")
        rows.append(element("li", drawn, element("span", one.name)))
    return element("ul", *rows, class_="legend")


def _line(
    x1: float, y1: float, x2: float, y2: float, kind: str, *, dash: str | None = None
) -> Markup:
    return element(
        "line", x1=_n(x1), y1=_n(y1), x2=_n(x2), y2=_n(y2), class_=kind, stroke_dasharray=dash
    )


def _text(x: float, y: float, text: str, anchor: str, kind: str | None = None) -> Markup:
    return element("text", text, x=_n(x), y=_n(y), text_anchor=anchor, class_=kind)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: max(1, most - 3)]}..."


def _n(value: float) -> Markup:
    return escape(f"{value:.2f}".rstrip("0").rstrip("."))
