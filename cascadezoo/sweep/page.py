"""Writes the results of a sweep as one self-contained page, and its plots as PNG files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cascadezoo.errors import InputError
from cascadezoo.model_folder.layout import SAMPLES
from cascadezoo.report.charts import Chart
from cascadezoo.report.charts_svg import draw_plots
from cascadezoo.report.page_pictures import inline_picture, sheet
from cascadezoo.report.page_templates import render_page
from cascadezoo.report.tables import Column, PageTable, Row, TableCell
from cascadezoo.sweep.result_charts import KID, sweep_charts
from cascadezoo.sweep.results import CellResult, Correlation, GroupResult, SweepResults
from cascadezoo.sweep.tables import best_text, variance_text
from cascadezoo.sweep.variance import Best, Variance
from cascadezoo.util.files import write_atomically
from cascadezoo.util.numbers import page_number as number
from cascadezoo.util.numbers import page_spread as spread

__all__ = ["PAGE", "write_page"]

PAGE = "results.html"
_SHOWN = 9
_STATES = {
    "done": "done",
    "failed": "failed",
    "stopped": "stopped; the same sweep command continues it",
    "waiting": "not started",
}

_FIGURES = (
    Column("KID", numeric=True, note="x 1000", places=1),
    Column("mean KID", numeric=True, note="x 1000, in training", places=1),
    Column("LPIPS", numeric=True, places=3),
)
_LABELS = {
    "cores": "CPU cores",
    "memory_gib": "Memory (GiB)",
    "python": "Python",
    "torch": "PyTorch",
}
"""Labels of machine properties that differ from their keys."""


def write_page(results: SweepResults, folder: Path) -> Path:
    """Write ``results.html`` and ``plots/*.png``, also while cells are unfinished.

    Args:
        results: the results so far.
        folder: the sweep's folder, which contains the cells' run folders.

    Returns:
        The page's path.

    Raises:
        OSError: the folder is not writable.
    """
    from cascadezoo.report.charts_png import write_png

    charts = sweep_charts(results)
    plots = folder / "plots"
    plots.mkdir(parents=True, exist_ok=True)
    for name, drawn in charts.items():
        write_png(drawn, plots / name)
    html = render_page(
        "results.html.j2", package="cascadezoo.sweep", **_context(results, folder, charts)
    )
    write_atomically(folder / PAGE, html.encode())
    return folder / PAGE


def _context(
    results: SweepResults, folder: Path, charts: Mapping[str, Sequence[Chart]]
) -> dict[str, Any]:
    """The variables of the template."""
    several = any(len(group.cells) > 1 for group in results.groups)
    correlation = results.correlation
    cards = {cell.name: card for cell in results.cells if (card := _card(cell, folder))}
    return {
        "title": results.name,
        "lead": results.description,
        "facts": [(name, value) for name, value in _overview(results) if value is not None],
        "remarks": results.notes,
        "failures": _failures(results),
        "cells": _cells(results),
        "reading": _reading(results),
        "groups": _groups(results) if several else None,
        "seeds": ", ".join(results.seed_axes) or "seed",
        "plots": draw_plots([chart for drawn in charts.values() for chart in drawn]),
        "correlation": None if correlation is None else correlation_text(correlation),
        "variance": None if results.variance is None else variance_text(results.variance),
        "explained": _explained(results.variance),
        "best": None if results.best is None else best_text(results.best),
        "rivals": _rivals(results.best),
        "within": _within(correlation),
        "shown": _SHOWN,
        "cards": cards,
        "no_cards": [cell.name for cell in results.cells if cell.name not in cards],
        "settings": _settings(results),
        "runs": _runs(results),
    }


def _overview(results: SweepResults) -> Iterable[tuple[str, object]]:
    counts = {state: sum(c.state == state for c in results.cells) for state in _STATES}
    yield "Cells", len(results.cells)
    yield "Done", counts["done"]
    for state in ("failed", "stopped", "waiting"):
        if counts[state]:
            yield state.capitalize(), counts[state]
    yield "Axes", ", ".join(results.axes)
    yield "Started", results.started[:16].replace("T", " ") + " UTC" if results.started else None
    trained = [c.training_seconds for c in results.cells if c.training_seconds is not None]
    if trained:
        yield "Training time", duration(sum(trained))
    for name, value in results.machine.items():
        if value not in (None, [], ""):
            yield _LABELS.get(name, _label(name)), _value(value)


def _failures(results: SweepResults) -> PageTable | None:
    failed = [c for c in results.cells if c.state in ("failed", "stopped") and c.error]
    if not failed:
        return None
    rows: list[Row] = [[c.name, _STATES[c.state], TableCell(c.error)] for c in failed]
    columns = [Column("cell"), Column("state"), Column("reason")]
    return PageTable(columns, rows, label="Cells that failed")


def _cells(results: SweepResults) -> PageTable:
    kinds = {c.kid_name for c in results.cells if c.kid_name}
    stages = max((len(c.stages) for c in results.cells), default=0)
    names = [_stage_name(results, place) for place in range(stages)]
    columns = [
        Column("cell"),
        *_FIGURES,
        Column("epoch", numeric=True, note="seconds", places=1),
        Column("training", numeric=True, note="seconds", places=1),
        Column("sampling", numeric=True, note="images/s", places=1),
        Column("parameters", numeric=True, note="of all stages"),
        *[Column(name, numeric=True, note="parameters") for name in names],
    ]
    rows = [_row(cell, stages, len(kinds) > 1) for cell in results.cells]
    return PageTable(columns, rows, label="Results of every cell")


def _row(cell: CellResult, stages: int, mixed: bool) -> Row:
    state = "" if cell.state == "done" else _STATES[cell.state]
    row: list[TableCell | str | float | None] = [
        TableCell(cell.name, note=state),
        _kid(cell.kid, cell.kid_std, cell.kid_name if mixed else None),
        _kid(cell.kid_mean, None, cell.kid_mean_name if mixed else None),
        cell.lpips,
        cell.seconds_per_epoch,
        cell.training_seconds,
        cell.images_per_second,
        _count(cell.parameters),
    ]
    for place in range(stages):
        stage = cell.stages[place] if place < len(cell.stages) else None
        # Parameters are not known before the cell is done.
        row.append(None if stage is None else _count(stage.parameters, stage.kind))
    return row


def _count(count: int | None, note: str = "") -> TableCell:
    return TableCell(None if count is None else f"{count:,}", value=count, note=note)


def _kid(value: float | None, std: float | None, name: str | None = None) -> TableCell | None:
    if value is None:
        return None
    shown = value * KID if std is None else spread(value, std, KID)
    return TableCell(shown, value=value * KID, note=name or "")


def _reading(results: SweepResults) -> str:
    names = {
        "KID": {c.kid_name for c in results.cells},
        "mean KID": {c.kid_mean_name for c in results.cells},
        "LPIPS": {c.lpips_name for c in results.cells},
    }
    shown = [
        f"{measure} is {' and '.join(sorted(known))}"
        for measure, listed in names.items()
        if (known := [name for name in listed if name])
    ]
    meaning = (
        "KID is the Kernel Inception Distance, ± its spread over subsets. Lower is better, for "
        "KID and for LPIPS. Mean KID is the mean of the KIDs measured during training. Seconds per "
        "epoch are means over all phases."
    )
    return f"{'; '.join(shown)}. {meaning}" if shown else meaning


def _groups(results: SweepResults) -> PageTable:
    columns = [
        Column("combination"),
        *_FIGURES,
        Column("training", numeric=True, note="seconds", places=1),
        Column("sampling", numeric=True, note="images/s", places=1),
        Column("done", numeric=True, note="cells"),
        Column("parameters", numeric=True, note="of all stages"),
    ]
    rows = [_group(group) for group in results.groups]
    return PageTable(columns, rows, label="Means over seeds")


def _group(group: GroupResult) -> Row:
    def cell(measure: str, scale: float = 1.0) -> TableCell | None:
        mean = group.mean(measure)
        if mean is None:
            return None
        std = group.std(measure)
        shown = mean * scale if std is None else spread(mean, std, scale)
        return TableCell(shown, value=mean * scale)

    return [
        group.name,
        cell("kid", KID),
        cell("kid_mean", KID),
        cell("lpips"),
        cell("training_seconds"),
        cell("images_per_second"),
        TableCell(f"{group.count} of {len(group.cells)}", value=group.count),
        _count(group.parameters),
    ]


def _explained(variance: Variance | None) -> PageTable | None:
    if variance is None or not variance.effects:
        return None
    rows: list[Row] = [
        [
            effect.name,
            TableCell(f"{effect.share:.1%}", value=effect.share),
            None
            if effect.low is None
            else TableCell(f"{effect.low:.1%} to {effect.high or 0:.1%}", value=effect.low),
            effect.p,
        ]
        for effect in variance.effects
    ]
    columns = [
        Column("effect"),
        Column("share of variance", numeric=True),
        Column("interval", numeric=True, note="90 %"),
        Column("p", numeric=True, places=3),
    ]
    return PageTable(columns, rows, label="Shares of the variance of KID")


def _rivals(best: Best | None) -> PageTable | None:
    if best is None:
        return None
    rows: list[Row] = [
        [
            rival.name,
            TableCell(f"{KID * rival.difference:.3g}", value=rival.difference),
            TableCell(f"{KID * rival.low:.3g} to {KID * rival.high:.3g}", value=rival.low),
            rival.p,
        ]
        for rival in best.rivals
    ]
    columns = [
        Column("combination"),
        Column("difference", numeric=True, note="KID x 1000"),
        Column("interval", numeric=True, note="95 %, all pairs"),
        Column("p", numeric=True, places=3),
    ]
    return PageTable(columns, rows, label=f"Compared with {best.name}")


def _within(correlation: Correlation | None) -> PageTable | None:
    if correlation is None or not correlation.within:
        return None
    columns = [
        Column("among cells with"),
        Column("axis"),
        Column("combinations", numeric=True),
        Column("rho", numeric=True, places=2),
        Column("p", numeric=True, places=3),
    ]
    rows: list[Row] = [[row.label, row.axis, row.n, row.rho, row.p] for row in correlation.within]
    return PageTable(columns, rows, label="Rank correlation within each stage type")


def correlation_text(result: Correlation) -> str:
    """The rank correlation as sentences."""
    if result.rho is None or result.p is None:
        return (
            f"All {result.n} combinations have the same number of parameters or the same KID, so a "
            "rank correlation is not defined."
        )
    how = "over all permutations" if result.method == "exact" else "by Student's t"
    p = "below 0.001" if result.p < 0.001 else f"= {result.p:.3f}"
    text = (
        f"Spearman's rank correlation of parameters and KID over {result.n} combinations is "
        f"{result.rho:+.2f} (p {p}, {how})."
    )
    if result.p >= 0.05:
        return (
            f"{text} This is no evidence that more parameters change KID. So few combinations "
            "are no evidence of the contrary either."
        )
    way = "lower, which is better" if result.rho < 0 else "higher, which is worse"
    return f"{text} Cascades with more parameters tend to have a KID that is {way}."


def _card(cell: CellResult, folder: Path) -> dict[str, Any] | None:
    """The samples of a cell with its KID, or the reason why they cannot be shown; None if none."""
    path = folder / cell.run / "model" / SAMPLES
    if cell.state != "done" or not path.is_file():
        return None
    from PIL import Image

    from cascadezoo.report.images import cut_samples

    size = _size(cell, path)
    kid = "" if cell.kid is None else f"KID x 1000: {spread(cell.kid, cell.kid_std, KID)}"
    try:
        with Image.open(path, formats=("PNG",)) as opened:
            cut = None if size is None else cut_samples(opened, size, _SHOWN)
        return {"picture": inline_picture(sheet(cut, 3, cell=64) if cut else path), "kid": kid}
    except (OSError, InputError) as error:
        return {"picture": None, "error": str(error)}


def _size(cell: CellResult, path: Path) -> int | None:
    """The size of the cell's images from its config; None if the config does not give it."""
    from cascadezoo.errors import ModelError
    from cascadezoo.model_folder.layout import read_config

    try:
        size = read_config(path.parent).spec.get("data", {}).get("size")
    except (ModelError, AttributeError):
        return None
    return size if isinstance(size, int) and 0 < size <= 4096 else None


def _settings(results: SweepResults) -> PageTable | None:
    rows: list[Row] = [
        [_label(str(name)), TableCell(_value(value))] for name, value in results.settings.items()
    ]
    if not rows:
        return None
    return PageTable([Column("setting"), Column("value")], rows, label="Settings")


def _runs(results: SweepResults) -> PageTable:
    rows: list[Row] = [[c.name, c.run, c.device] for c in results.cells]
    columns = [Column("cell"), Column("run folder"), Column("device")]
    return PageTable(columns, rows, label="Run folders")


def _stage_name(results: SweepResults, place: int) -> str:
    names = {c.stages[place].name for c in results.cells if place < len(c.stages)}
    return names.pop() if len(names) == 1 else f"stage {place + 1}"


def _label(key: str) -> str:
    return key.replace("_", " ").capitalize() if "." not in key else key


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_value(one)}" for key, one in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_value(one) for one in value)
    if isinstance(value, float):
        return number(value)
    return str(value)


def duration(seconds: float) -> str:
    """Seconds in readable units.

    >>> duration(42.3), duration(155), duration(7384)
    ('42.3 s', '2 min 35 s', '2 h 3 min')
    """
    if not math.isfinite(seconds) or seconds < 60:
        return f"{number(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if hours else f"{minutes} min {rest} s"
