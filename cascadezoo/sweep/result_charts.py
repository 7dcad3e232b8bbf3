"""The plots of a sweep: KID against parameters, against training time, and over epochs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from cascadezoo.report.charts import Axis, Chart, Point, Series
from cascadezoo.sweep.results import CellResult, SweepResults, label_text

__all__ = ["KID", "PLOTS", "sweep_charts"]

KID = 1000.0
"""Factor by which plots and tables multiply KIDs."""

PLOTS = {
    "kid-parameters.png": "KID against parameters",
    "kid-time.png": "KID against training time",
    "kid-epochs.png": "KID over epochs",
}
"""The files in ``plots/`` and what they show."""

_ONE_PANEL = 6
_UNITS = ((3 * 3600.0, "h", 3600.0), (5 * 60.0, "min", 60.0), (0.0, "s", 1.0))


def sweep_charts(results: SweepResults) -> dict[str, list[Chart]]:
    """The charts of each file of :data:`PLOTS`.

    Cells that differ only in seeds are one point: their mean and its spread over seeds. A single
    cell has the spread of its KID over subsets.
    """
    return {
        "kid-parameters.png": [_parameters(results)],
        "kid-time.png": [_time(results)],
        "kid-epochs.png": _epochs(results),
    }


def _axes(results: SweepResults) -> list[str]:
    """The axes without seeds; axes with several labels come first."""
    axes = [axis for axis in results.axes if axis not in results.seed_axes]
    return sorted(axes, key=lambda a: len({c.labels.get(a) for c in results.cells}) < 2)


def _spots(results: SweepResults, measure: str) -> list[tuple[dict[str, str], str, Point]]:
    """Labels, KID name and point of each group that has a KID and the measure."""
    names = Counter(cell.kid_name for cell in results.cells if cell.kid_name)
    if not names:
        return []
    chosen = names.most_common(1)[0][0]
    cells = {cell.name: cell for cell in results.cells}
    rows = []
    for group in results.groups:
        across = group.parameters if measure == "parameters" else group.mean(measure)
        kid = group.mean("kid")
        if across is None or kid is None or group.kid_name != chosen:
            continue
        std = group.std("kid")
        if std is None:
            stds = [cells[name].kid_std for name in group.cells if cells[name].kid is not None]
            std = stds[0] if stds else None
        point = Point(across, kid * KID, None if std is None else std * KID, group.name)
        rows.append((group.labels, chosen, point))
    return rows


def _scatter(
    results: SweepResults, spots: Sequence[tuple[dict[str, str], str, Point]], title: str, x: Axis
) -> Chart:
    axes = _axes(results)
    first = axes[0] if axes else None
    labels = list(dict.fromkeys(row[0].get(first or "", "") for row in spots))
    series = [
        Series(
            label,
            [p for group, _, p in spots if group.get(first or "", "") == label],
        )
        for label in labels
    ]
    values = [row[2].y for row in spots]
    name = spots[0][1] if spots else "KID"
    return Chart(
        title,
        x,
        Axis(f"{name}, x 1000", log=_wide(values), zero=True),
        series,
        note=_left_out(results, len(spots)),
        labelled=len(spots) <= 24,
    )


def _left_out(results: SweepResults, shown: int) -> str:
    total = sum(group.mean("kid") is not None for group in results.groups)
    if shown == total:
        return ""
    reason = "they have another figure or lack this number"
    return f"{total - shown} of {total} combinations are not shown: {reason}."


def _wide(values: Sequence[float], times: float = 30.0) -> bool:
    """Whether the values span so much that the axis must be logarithmic."""
    return bool(values) and min(values) > 0 and max(values) > times * min(values)


def _parameters(results: SweepResults) -> Chart:
    spots = _spots(results, "parameters")
    counts = [row[2].x for row in spots]
    log = bool(counts) and max(counts) > 8 * max(1.0, min(counts))
    return _scatter(results, spots, PLOTS["kid-parameters.png"], Axis("parameters", log=log))


def _time(results: SweepResults) -> Chart:
    spots = _spots(results, "training_seconds")
    most = max((row[2].x for row in spots), default=0.0)
    _, unit, size = next(row for row in _UNITS if most >= row[0])
    scaled = [
        (labels, name, Point(p.x / size, p.y, p.spread, p.label)) for labels, name, p in spots
    ]
    axis = Axis(f"training time ({unit})", zero=True)
    return _scatter(results, scaled, PLOTS["kid-time.png"], axis)


def _epochs(results: SweepResults) -> list[Chart]:
    """One chart, or one for each label of the first axis if there are too many lines."""
    cells = [cell for cell in results.cells if cell.course]
    names = Counter(point.name for cell in cells for point in cell.course)
    title = PLOTS["kid-epochs.png"]
    if not names:
        return [Chart(title, Axis("epoch"), Axis("KID"), [])]
    chosen = names.most_common(1)[0][0]
    values = [p.value * KID for c in cells for p in c.course if p.name == chosen]
    epochs = [p.epoch for c in cells for p in c.course]
    log = _wide(values, 8.0)
    # All panels share one scale, so that readers can compare them.
    low, high = (min(values), max(values)) if log else (None, max(values) * 1.06)
    up = Axis(f"{chosen}, x 1000", log=log, zero=True, low=low, high=high)
    across = _epoch_axis(min(epochs), max(epochs))
    axes = _axes(results)
    groups = {label_text(c.labels, results.seed_axes) for c in cells}
    if len(groups) <= _ONE_PANEL or len(axes) < 2:
        return [Chart(title, across, up, _lines(cells, chosen, results.seed_axes))]
    first = axes[0]
    labels = dict.fromkeys(cell.labels.get(first, "") for cell in cells)
    out = [first, *results.seed_axes]
    rest = {n: i for i, n in enumerate(dict.fromkeys(label_text(c.labels, out) for c in cells))}
    return [
        Chart(
            f"{title}: {label}",
            across,
            up,
            _lines([c for c in cells if c.labels.get(first, "") == label], chosen, out, rest),
        )
        for label in labels
    ]


def _epoch_axis(least: float, most: float) -> Axis:
    """Starts at 0 if the records begin early; leaves room for the last marks."""
    label = "epoch, over all phases"
    if least <= (most - least):
        return Axis(label, zero=True, high=most * 1.03)
    room = 0.06 * (most - least) or 0.5
    return Axis(label, low=max(0.0, least - room), high=most + room)


def _lines(
    cells: Sequence[CellResult],
    chosen: str,
    leave_out: Sequence[str],
    styles: dict[str, int] | None = None,
) -> list[Series]:
    known = {} if styles is None else styles
    series = []
    for cell in cells:
        name = label_text(cell.labels, leave_out) or cell.name
        style = known.setdefault(name, len(known))
        points = [
            Point(p.epoch, p.value * KID, label=f"{cell.name}, {p.phase}")
            for p in cell.course
            if p.name == chosen
        ]
        series.append(Series(name, points, joined=True, style=style))
    return series
