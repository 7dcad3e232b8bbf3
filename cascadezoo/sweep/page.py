"""The results of a sweep as one page that needs nothing else, and its plots as PNG files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from cascadezoo.errors import InputError
from cascadezoo.model_folder.layout import SAMPLES
from cascadezoo.report.blocks import Column, Row, TableCell, data_uri, folded, table
from cascadezoo.report.charts import Chart
from cascadezoo.report.html import Markup, element, number, spread
from cascadezoo.report.page import Page
from cascadezoo.report.thumbnail_sheet import sheet
from cascadezoo.sweep.result_charts import KID, sweep_charts
from cascadezoo.sweep.results import CellResult, Correlation, GroupResult, SweepResults
from cascadezoo.util.files import write_atomically

__all__ = ["PAGE", "write_page"]

PAGE = "results.html"
_SHOWN = 9
_STATES = {
    "done": "done",
    "failed": "failed",
    "stopped": "stopped; it goes on when the sweep does",
    "waiting": "not begun",
}


def write_page(results: SweepResults, folder: Path) -> Path:
    """Write ``results.html`` and ``plots/*.png``, also while cells are unfinished.

    Args:
        results: what is known so far.
        folder: the sweep's folder, in which the cells' run folders are looked for.

    Returns:
        The page's path.

    Raises:
        OSError: the folder cannot be written.
    """
    from cascadezoo.report.charts_png import write_png

    charts = sweep_charts(results)
    plots = folder / "plots"
    plots.mkdir(parents=True, exist_ok=True)
    for name, drawn in charts.items():
        write_png(drawn, plots / name)
    page = _page(results, folder, charts)
    write_atomically(folder / PAGE, page.html().encode())
    return folder / PAGE


def _page(results: SweepResults, folder: Path, charts: Mapping[str, list[Chart]]) -> Page:
    page = Page(results.name, results.description)
    page.facts(_overview(results))
    for note in results.notes:
        page.text(note, kind="lacks")
    _failures(page, results)
    several = any(len(group.cells) > 1 for group in results.groups)
    _cells(page, results)
    if several:
        _groups(page, results)
    page.section("Plots", "Every point tells its cell and its numbers to a pointer held over it.")
    page.figure(*[chart for drawn in charts.values() for chart in drawn])
    _matters(page, results)
    _samples(page, results, folder)
    _settings(page, results)
    return page


def _overview(results: SweepResults) -> Iterable[tuple[str, object]]:
    counts = {state: sum(c.state == state for c in results.cells) for state in _STATES}
    yield "Cells", len(results.cells)
    yield "Done", counts["done"]
    for state in ("failed", "stopped", "waiting"):
        if counts[state]:
            yield state.capitalize(), counts[state]
    yield "Axes", ", ".join(results.axes)
    yield "Begun", results.started[:16].replace("T", " ") + " UTC" if results.started else None
    trained = [c.training_seconds for c in results.cells if c.training_seconds is not None]
    if trained:
        yield "Training in all", duration(sum(trained))
    for name, value in results.machine.items():
        yield name.replace("_", " ").capitalize(), _said(value)


def _failures(page: Page, results: SweepResults) -> None:
    failed = [c for c in results.cells if c.state in ("failed", "stopped") and c.error]
    if not failed:
        return
    page.section("What failed", "The same sweep command runs these cells again, and no others.")
    rows: list[Row] = [[c.name, _STATES[c.state], TableCell(c.error)] for c in failed]
    page.table([Column("cell"), Column("state"), Column("reason")], rows, label="Cells that failed")


def _cells(page: Page, results: SweepResults) -> None:
    page.section("Results")
    kinds = {c.kid_name for c in results.cells if c.kid_name}
    stages = max((len(c.stages) for c in results.cells), default=0)
    names = [_stage_name(results, place) for place in range(stages)]
    columns = [
        Column("cell"),
        *[Column(name, numeric=True, note="parameters") for name in names],
        Column("in all", numeric=True, note="parameters"),
        Column("KID", numeric=True, note="x 1000", places=1),
        Column("mean KID", numeric=True, note="x 1000, in training", places=1),
        Column("LPIPS", numeric=True, places=3),
        Column("epoch", numeric=True, note="seconds", places=1),
        Column("training", numeric=True, note="seconds", places=1),
        Column("sampling", numeric=True, note="images/s", places=1),
    ]
    rows = [_row(cell, stages, len(kinds) > 1) for cell in results.cells]
    page.table(columns, rows, label="Results of every cell")
    page.text(_reading(results), kind="note")


def _row(cell: CellResult, stages: int, mixed: bool) -> Row:
    state = "" if cell.state == "done" else _STATES[cell.state]
    made: list[TableCell | str | float | None] = [TableCell(cell.name, note=state)]
    for place in range(stages):
        if place < len(cell.stages):
            stage = cell.stages[place]
            count = stage.parameters  # not known while the cell is not done
            shown = None if count is None else f"{count:,}"
            made.append(TableCell(shown, value=count, note=stage.kind))
        else:
            made.append(None)
    total = cell.parameters
    made.append(None if total is None else TableCell(f"{total:,}", value=total))
    made.append(_kid(cell.kid, cell.kid_std, cell.kid_name if mixed else None))
    made.append(_kid(cell.kid_mean, None, cell.kid_mean_name if mixed else None))
    made += [cell.lpips, cell.seconds_per_epoch, cell.training_seconds, cell.images_per_second]
    return made


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
    told = [
        f"{what} is {' and '.join(sorted(found))}"
        for what, known in names.items()
        if (found := [name for name in known if name])
    ]
    meant = (
        "KID is the Kernel Inception Distance, ± its spread over subsets; lower is better, and so "
        "with LPIPS. Mean KID is over what was measured in the course of training. Seconds per "
        "epoch are means over all phases."
    )
    return f"{'; '.join(told)}. {meant}" if told else meant


def _groups(page: Page, results: SweepResults) -> None:
    seeds = ", ".join(results.seed_axes) or "seed"
    page.section(
        "Over seeds",
        f"Cells that differ in {seeds} alone: mean, ± the standard deviation between them.",
    )
    columns = [
        Column("combination"),
        Column("done", numeric=True, note="cells"),
        Column("in all", numeric=True, note="parameters"),
        Column("KID", numeric=True, note="x 1000", places=1),
        Column("mean KID", numeric=True, note="x 1000, in training", places=1),
        Column("LPIPS", numeric=True, places=3),
        Column("training", numeric=True, note="seconds", places=1),
        Column("sampling", numeric=True, note="images/s", places=1),
    ]
    rows = [_group(group) for group in results.groups]
    page.table(columns, rows, label="Means over seeds")


def _group(group: GroupResult) -> Row:
    def cell(measure: str, scale: float = 1.0) -> TableCell | None:
        mean = group.mean(measure)
        if mean is None:
            return None
        std = group.std(measure)
        shown = mean * scale if std is None else spread(mean, std, scale)
        return TableCell(shown, value=mean * scale)

    total = group.parameters
    return [
        group.name,
        TableCell(f"{group.count} of {len(group.cells)}", value=group.count),
        None if total is None else TableCell(f"{total:,}", value=total),
        cell("kid", KID),
        cell("kid_mean", KID),
        cell("lpips"),
        cell("training_seconds"),
        cell("images_per_second"),
    ]


def _matters(page: Page, results: SweepResults) -> None:
    page.section("Parameters or combination?")
    found = results.correlation
    if found is None:
        page.text(
            "Parameters are not held against KID: that takes three combinations at least with KIDs "
            "of one figure.",
            kind="lacks",
        )
        return
    page.text(correlation_words(found))
    if found.explained:
        page.text(
            "The share of the variance of KID that lies between the labels of each axis "
            "(eta squared): 0 means that the axis does not matter, 1 that nothing else does."
        )
        rows: list[Row] = [
            [axis, TableCell(f"{share:.0%}", value=share)]
            for axis, share in found.explained.items()
        ]
        columns = [Column("axis"), Column("share of variance", numeric=True)]
        page.table(columns, rows, label="Share of the variance of KID by axis")
    if found.within:
        columns = [
            Column("among cells with"),
            Column("axis"),
            Column("combinations", numeric=True),
            Column("rho", numeric=True, places=2),
            Column("p", numeric=True, places=3),
        ]
        rows_within: list[Row] = [
            [row.label, row.axis, row.n, row.rho, row.p] for row in found.within
        ]
        inside = table(columns, rows_within, label="Rank correlation within each stage type")
        page.text("The same rank correlation where one stage is held fast:")
        page.add(inside)


def correlation_words(found: Correlation) -> str:
    """The rank correlation as sentences."""
    if found.rho is None or found.p is None:
        return (
            f"All {found.n} combinations have as many parameters, or the same KID: there is no "
            "order to compare, and whatever differs is the combination's."
        )
    how = "over all permutations" if found.method == "exact" else "by Student's t"
    p = "below 0.001" if found.p < 0.001 else f"= {found.p:.3f}"
    told = (
        f"Spearman's rank correlation of parameters and KID over {found.n} combinations is "
        f"{found.rho:+.2f} (p {p}, {how})."
    )
    if found.p >= 0.05:
        return (
            f"{told} That is no evidence that the parameter count orders these cascades. With so "
            "few combinations it is no evidence of the contrary either."
        )
    way = "lower, which is better" if found.rho < 0 else "higher, which is worse"
    return f"{told} Cascades of more parameters tend to have a KID that is {way}."


def _samples(page: Page, results: SweepResults, folder: Path) -> None:
    page.section("Samples", f"The first {_SHOWN} of each cell; all were sampled from one seed.")
    cards, lacking = [], []
    for cell in results.cells:
        made = _card(cell, folder)
        if made is None:
            lacking.append(cell.name)
        else:
            cards.append(made)
    page.cards(cards)
    if lacking:
        page.text(f"No samples of {', '.join(lacking)}: not finished.", kind="lacks")


def _card(cell: CellResult, folder: Path) -> Markup | None:
    path = folder / cell.run / "model" / SAMPLES
    if cell.state != "done" or not path.is_file():
        return None
    from PIL import Image

    from cascadezoo.report.images import cut_samples

    size = _size(cell, path)
    try:
        with Image.open(path, formats=("PNG",)) as found:
            cut = None if size is None else cut_samples(found, size, _SHOWN)
        uri, width, height = data_uri(sheet(cut, 3, cell=64) if cut else path)
    except (OSError, InputError) as error:
        return element("div", element("h3", cell.name), element("p", str(error), class_="lacks"))
    image = element(
        "img", src=uri, alt=f"Samples of {cell.name}", width=width, height=height, class_="pixels"
    )
    kid = "" if cell.kid is None else f"KID x 1000: {spread(cell.kid, cell.kid_std, KID)}"
    return element("figure", element("h3", cell.name), image, element("figcaption", kid))


def _size(cell: CellResult, path: Path) -> int | None:
    """How large the cell's images are, from its config; None where it does not tell."""
    from cascadezoo.errors import ModelError
    from cascadezoo.model_folder.layout import read_config

    try:
        size = read_config(path.parent).spec.get("data", {}).get("size")
    except (ModelError, AttributeError):
        return None
    return size if isinstance(size, int) and 0 < size <= 4096 else None


def _settings(page: Page, results: SweepResults) -> None:
    page.section("How to get it again")
    page.text(
        "Each cell is a run folder of its own with its spec, its events and its model; "
        "results.json and results.csv beside this page hold every number of it."
    )
    rows: list[Row] = [
        [str(name), TableCell(_said(value))] for name, value in results.settings.items()
    ]
    if rows:
        columns = [Column("setting"), Column("value")]
        page.add(folded("Settings of all cells", table(columns, rows, label="Settings")))
    runs: list[Row] = [[c.name, c.run, c.device] for c in results.cells]
    columns = [Column("cell"), Column("run folder"), Column("trained on")]
    page.add(folded("Run folders", table(columns, runs, label="Run folders")))


def _stage_name(results: SweepResults, place: int) -> str:
    names = {c.stages[place].name for c in results.cells if place < len(c.stages)}
    return names.pop() if len(names) == 1 else f"stage {place + 1}"


def _said(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_said(one)}" for key, one in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_said(one) for one in value)
    if isinstance(value, float):
        return number(value)
    return str(value)


def duration(seconds: float) -> str:
    """Seconds as people say them.

    >>> duration(42.3), duration(155), duration(7384)
    ('42.3 s', '2 min 35 s', '2 h 3 min')
    """
    if not math.isfinite(seconds) or seconds < 60:
        return f"{number(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if hours else f"{minutes} min {rest} s"
