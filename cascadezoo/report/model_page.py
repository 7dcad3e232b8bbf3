"""The page of one model, or of several side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from cascadezoo.model_folder.figures import Figure
from cascadezoo.model_folder.reproduction import metric_texts
from cascadezoo.report.blocks import (
    Column,
    Row,
    TableCell,
    facts,
    folded,
    layers,
    picture,
    strip,
    table,
)
from cascadezoo.report.charts import short
from cascadezoo.report.course_charts import axis_label, course_charts
from cascadezoo.report.html import Markup, element, join, number, spread
from cascadezoo.report.model_view import ModelView
from cascadezoo.report.page import Bars, Page
from cascadezoo.report.projection import projection_chart
from cascadezoo.report.recorded_metrics import Attribution

__all__ = ["figure_value", "model_page"]

ATTRIBUTE = "cascadezoo evaluate MODEL --stages --save"


def model_page(views: Sequence[ModelView], notes: Sequence[tuple[str, object]] = ()) -> Page:
    """Compose the page.

    Args:
        views: the models, at least one, under names that differ.
        notes: how the page was made: names and values.
    """
    alone = len(views) == 1
    title = (
        views[0].name
        if alone
        else " and ".join((", ".join(v.name for v in views[:-1]), views[-1].name))
    )
    lead = views[0].resolved.spec.description if alone else f"{len(views)} models side by side."
    page = Page(title, lead)
    if alone:
        page.add(_overview(views[0]))
    _each(page, "Samples", views, _samples)
    if not alone:
        _each(page, "The models", views, _described)
    _each(page, "Stage by stage", views, _strip)
    _each(page, "From noise to image", views, _trajectories)
    _figures(page, views)
    _stages(page, views)
    _attribution(page, views)
    _course(page, views)
    _epochs(page, views)
    _features(page, views)
    page.section("How this page was made")
    page.facts(notes)
    page.text(
        "Everything is inside this file: it asks nothing of any network. Figures are those that "
        "were recorded with the model; pictures were drawn for this page.",
        kind="note",
    )
    return page


def figure_value(figure: Figure) -> str:
    """A figure's number with its spread and unit, as a card shows it: KID times 1000."""
    return f"{spread(figure.value, figure.std, _scale(figure))} {_unit(figure)}".strip()


def _scale(figure: Figure) -> float:
    return metric_texts(figure.metric).scale


def _unit(figure: Figure) -> str:
    scale = _scale(figure)
    power = "x 10⁻³" if scale == 1000.0 else "" if scale == 1.0 else f"/ {scale:g}"
    return " ".join(part for part in (power, figure.unit) if part)


def _each(
    page: Page, title: str, views: Sequence[ModelView], draw: Callable[[ModelView], Markup]
) -> None:
    """A section with a column for each model."""
    page.section(title)
    page.side_by_side([(view.name, draw(view)) for view in views])


def _lacks(what: str, view: ModelView, topic: str) -> Markup:
    reason = view.lacks.get(topic, "nothing of it was recorded")
    return element("p", f"{what}: {reason}.", class_="lacks")


def _overview(view: ModelView) -> Markup:
    spec, recorded = view.resolved.spec, view.recorded
    training = recorded.training if recorded else {}
    seconds, images = training.get("seconds"), training.get("images")
    total = sum(int(row["parameters"]) for row in view.plan) if view.plan else None
    rows: list[tuple[str, object]] = [
        ("Stages", " → ".join(s.name for s in view.resolved.stages)),
        ("Makes", str(view.resolved.image)),
        ("Parameters", None if total is None else f"{total:,}"),
        ("Data", view.resolved.data_info.title or spec.data.source),
        ("Trained on", None if not isinstance(images, float) else f"{images:,.0f} images"),
        ("Training", None if not isinstance(seconds, float) else f"{number(seconds)} seconds"),
        ("Device", training.get("device")),
        ("Precision", training.get("precision")),
        ("Licence", spec.license),
    ]
    missing = [name for name, value in rows if value is None]
    told = f"Not recorded: {', '.join(missing).lower()}." if missing else ""
    return join([facts(rows), element("p", told, class_="lacks") if told else ""])


def _described(view: ModelView) -> Markup:
    text = view.resolved.spec.description
    return join([element("p", text) if text else "", _overview(view)])


def _samples(view: ModelView) -> Markup:
    if view.samples is None:
        return _lacks("No samples", view, "samples")
    classes = view.resolved.num_classes
    told = "Each column has one label." if classes is not None and 4 <= classes <= 12 else ""
    return picture(view.samples, f"{view.count} samples of {view.name}", told)


def _strip(view: ModelView) -> Markup:
    if not view.strip:
        return _lacks("No strip", view, "strip")
    told = "Each column is one image on its way from the first stage to the last."
    latent = [s.name for s in view.resolved.stages if s.output.latent]
    if latent:
        told += f" {', '.join(latent)} makes latents, which are no picture."
    return layers(view.strip, f"Stages of {view.name}", told)


def _trajectories(view: ModelView) -> Markup:
    if not view.trajectories:
        return _lacks("No trajectories", view, "trajectories")
    parts = [
        strip(
            shown, f"Sampling by {stage} of {view.name}",
            f"Stage {stage}: each row is one image after the steps that are numbered above it.",
        )
        for stage, shown in view.trajectories.items()
    ]  # fmt: skip
    return join(parts)


def _figures(page: Page, views: Sequence[ModelView]) -> None:
    page.section(
        "Figures",
        "A figure's name holds metric, feature extractor and sample count. Figures of different "
        "names cannot be compared.",
    )
    found = {v.name: {f.name: f for f in (v.recorded.figures if v.recorded else ())} for v in views}
    for view in views:
        if view.recorded is None:
            page.text(f"{view.name} has no metrics.json.", kind="lacks")
        elif not view.recorded.figures:
            page.text(f"{view.name}: no figures were recorded.", kind="lacks")
    names = dict.fromkeys(name for figures in found.values() for name in figures)
    if not names:
        return
    if len(views) == 1:
        figures = found[views[0].name].values()
        columns = [Column("figure"), Column("value", numeric=True), Column("how it was got")]
        rows: list[Row] = [
            [TableCell(element("code", f.name), value=f.name), _figure_cell(f), _how(f)]
            for f in figures
        ]
        page.table(columns, rows, label="Figures")
        return
    columns = [Column("figure"), *[Column(view.name, numeric=True) for view in views]]
    compared: list[Row] = [
        [
            TableCell(element("code", name), value=name),
            *[_figure_cell(found[view.name].get(name)) for view in views],
        ]
        for name in names
    ]
    page.table(columns, compared, label="Figures of all models")
    told: list[Row] = [
        [view.name, TableCell(element("code", f.name), value=f.name), _how(f)]
        for view in views
        for f in found[view.name].values()
    ]
    columns = [Column("model"), Column("figure"), Column("how it was got")]
    page.add(folded("How each was got", table(columns, told, label="How the figures were got")))


def _figure_cell(figure: Figure | None) -> TableCell | None:
    if figure is None:
        return None
    return TableCell(figure_value(figure), value=figure.value * _scale(figure))


def _how(figure: Figure) -> str:
    parts: list[str] = [f"{figure.n:,} images"]
    if figure.n_real is not None:
        parts.append(f"against {figure.n_real:,} real ones")
    if figure.split is not None:
        parts.append(f"of {figure.split}")
    told = [" ".join(parts)]
    if figure.extractor is not None:
        version = f" {figure.extractor_version}" if figure.extractor_version else ""
        told.append(f"extractor {figure.extractor}{version}, {figure.precision or 'fp32'}")
    if figure.subsets is not None and figure.subset_size is not None:
        told.append(f"{figure.subsets} subsets of {figure.subset_size:,}")
    for name, value in (
        ("resolution", figure.resolution), ("seed", figure.seed), ("on", figure.device)
    ):  # fmt: skip
        if value is not None:
            told.append(f"{name} {value}")
    return "; ".join([*told, *([figure.note] if figure.note else [])])


def _stages(page: Page, views: Sequence[ModelView]) -> None:
    page.section("What it takes")
    alone = len(views) == 1
    columns = [
        *([] if alone else [Column("model")]),
        Column("stage"),
        Column("kind"),
        Column("makes"),
        Column("parameters", numeric=True),
        Column("FLOPs", numeric=True, note="of a forward pass"),
        Column("passes", numeric=True, note="to sample"),
        Column("FLOPs", numeric=True, note="to sample an image"),
    ]
    rows: list[Row] = []
    for view in views:
        for row in view.plan:
            cells: list[TableCell | str | float | None] = [] if alone else [view.name]
            cells += [str(row["name"]), str(row["kind"]), str(row["output"])]
            cells.append(TableCell(f"{row['parameters']:,}", value=row["parameters"]))
            cells += [_count(row["flops_forward"]), row["evaluations"], _count(row["flops_sample"])]
            rows.append(cells)
    page.table(columns, rows, label="Parameters and FLOPs of each stage")
    plots = [bars for view in views if (bars := _shares(view, alone)) is not None]
    if plots:
        page.figure(*plots)


def _count(value: float | None) -> TableCell | None:
    return None if value is None else TableCell(short(value), value=value)


def _shares(view: ModelView, alone: bool) -> Bars | None:
    """How parameters and sampling are shared out between the stages."""
    if len(view.plan) < 2:
        return None
    names = {"parameters": "parameters", "flops_sample": "FLOPs to sample"}
    totals = {key: sum(row[key] or 0 for row in view.plan) for key in names}
    groups = [
        (
            str(row["name"]),
            [None if row[k] is None else 100.0 * row[k] / (totals[k] or 1) for k in names],
        )
        for row in view.plan
    ]
    title = "Where parameters and sampling go" + ("" if alone else f": {view.name}")
    return Bars(title, "% of the cascade", list(names.values()), groups)


def _attribution(page: Page, views: Sequence[ModelView]) -> None:
    page.section("Where quality is lost")
    for view in views:
        rows = view.recorded.attribution if view.recorded else []
        if len(views) > 1:
            page.add(element("h3", view.name))
        if not rows:
            page.text(
                join(["Not measured. This measures it: ", element("code", ATTRIBUTE)]), kind="lacks"
            )
            continue
        columns = [
            Column("stage"),
            Column("given real images", numeric=True),
            Column("given generated ones", numeric=True),
            Column("mismatch", numeric=True),
            Column("share", numeric=True, note="of the whole figure"),
        ]
        page.table(columns, map(_lost, rows), label=f"Attribution by stage of {view.name}")
        page.figure(_lost_bars(rows))
        _worst(page, rows)


def _lost(row: Attribution) -> Row:
    def cell(figure: Figure | None) -> TableCell | None:
        if figure is None:
            return None
        value = figure.value * _scale(figure)
        return TableCell(figure_value(figure), value=value, note=figure.name)

    share = None if row.share is None else TableCell(f"{row.share:.0%}", value=row.share)
    return [row.stage, cell(row.real), cell(row.generated), _mismatch(row), share]


def _mismatch(row: Attribution) -> TableCell | None:
    if row.mismatch is None:
        return None
    value = row.mismatch * _scale(row.generated)
    return TableCell(f"{value:+.3g}", value=value)


def _lost_bars(rows: Sequence[Attribution]) -> Bars:
    def value(figure: Figure | None) -> float | None:
        return None if figure is None else figure.value * _scale(figure)

    metrics = sorted({f.metric for r in rows for f in (r.real, r.generated) if f is not None})
    label = " and ".join(axis_label(metric) for metric in metrics)
    better = {metric_texts(metric).better for metric in metrics}
    groups = [(row.stage, [value(row.real), value(row.generated)]) for row in rows]
    names = ["given real images", "given generated ones"]
    note = f"{str(better.pop()).capitalize()} is better." if len(better - {None}) == 1 else ""
    return Bars("What each stage makes of its input", label, names, groups, note)


def _worst(page: Page, rows: Iterable[Attribution]) -> None:
    """Which stage to work on: by the shares, since a mismatch may be the fault of those before."""
    known = [(row.share, row.stage) for row in rows if row.share is not None and row.share > 0]
    if known:
        share, stage = max(known)
        page.text(f"Most of the figure, {share:.0%}, comes in at stage {stage}: work on that one.")


def _course(page: Page, views: Sequence[ModelView]) -> None:
    page.section("Training")
    for view in views:
        if len(views) > 1:
            page.add(element("h3", view.name))
        charts = course_charts(view)
        if charts:
            page.figure(*charts)
        if view.course is None:
            page.add(_lacks("No curves", view, "course"))
        if view.course is None and view.recorded is not None and view.recorded.losses:
            rows: list[Row] = [
                [phase, name, value]
                for phase, losses in view.recorded.losses.items()
                for name, value in losses.items()
            ]
            columns = [Column("phase"), Column("loss"), Column("at its end", numeric=True)]
            page.table(columns, rows, label=f"Last losses of {view.name}")


def _epochs(page: Page, views: Sequence[ModelView]) -> None:
    page.section("Time per epoch")
    taken = {v.name: v.recorded.seconds_per_epoch if v.recorded else {} for v in views}
    phases = dict.fromkeys(phase for row in taken.values() for phase in row)
    for view in views:
        if not taken[view.name]:
            page.text(f"{view.name}: the time of an epoch was not recorded.", kind="lacks")
    if phases:
        alone = len(views) == 1
        heads = [
            Column("seconds" if alone else v.name, True, "" if alone else "seconds") for v in views
        ]
        rows: list[Row] = [[phase, *[taken[v.name].get(phase) for v in views]] for phase in phases]
        page.table([Column("phase"), *heads], rows, label="Seconds per epoch of each phase")


def _features(page: Page, views: Sequence[ModelView]) -> None:
    page.section("Real and generated features")
    shown = [v for v in views if v.projection is not None]
    alone = len(views) == 1
    page.figure(
        *[
            projection_chart(v.projection, "In one plane" if alone else v.name)
            for v in shown
            if v.projection is not None
        ]
    ) if shown else None
    for view in views:
        if view.projection is None:
            page.add(_lacks(f"{view.name}: no features", view, "features"))
    methods = {v.projection.method for v in shown if v.projection}
    extractors = sorted({v.projection.extractor for v in shown if v.projection})
    if methods:
        how = (
            "the two directions in which the features of the real images vary most"
            if methods == {"pca"}
            else "a plane that UMAP fits to the features of the real images"
        )
        page.text(
            f"Features by {', '.join(extractors)}, laid onto {how}. Where the generated images do "
            "not reach, the model lacks variety; where only they are, it makes what is not there. "
            "What lies apart in further directions cannot be seen here.",
            kind="note",
        )
