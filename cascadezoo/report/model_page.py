"""The page of one model, or of several side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cascadezoo.model_folder.figures import Figure
from cascadezoo.model_folder.reproduction import metric_texts
from cascadezoo.report.charts import Bars, Chart, short
from cascadezoo.report.charts_svg import draw_plots
from cascadezoo.report.course_charts import axis_label, course_charts, recorded_charts
from cascadezoo.report.model_view import ModelView, Shown
from cascadezoo.report.page_pictures import InlinePicture, inline_picture
from cascadezoo.report.page_templates import render_page
from cascadezoo.report.projection import projection_chart
from cascadezoo.report.recorded_metrics import Attribution
from cascadezoo.report.tables import Column, PageTable, Row, TableCell
from cascadezoo.util.numbers import page_number as number
from cascadezoo.util.numbers import page_spread as spread

__all__ = ["figure_value", "model_page"]

_TOPICS = ("samples", "strip", "trajectories", "course", "features")


def model_page(views: Sequence[ModelView], notes: Sequence[tuple[str, object]] = ()) -> str:
    """Render the page.

    Args:
        views: the models, at least one, with different names.
        notes: how the page was made: names and values.

    Returns:
        A complete HTML document.
    """
    names = [view.name for view in views]
    alone = len(views) == 1
    description = views[0].resolved.spec.description
    return render_page(
        "model.html.j2",
        title=names[0] if alone else f"{', '.join(names[:-1])} and {names[-1]}",
        lead=description if alone else f"{len(views)} models side by side.",
        alone=alone,
        models=[_model(view, alone) for view in views],
        figures=_figures(views),
        how=None if alone else _how_table(views),
        stages=_stages(views),
        shares=draw_plots([bars for v in views if (bars := _shares(v, alone)) is not None]),
        epochs=_epochs(views),
        features=_features(views),
        notes=[(name, value) for name, value in notes if value is not None],
    )


def _model(view: ModelView, alone: bool) -> dict[str, Any]:
    """The variables of the template for one model."""
    attribution = view.recorded.attribution if view.recorded else []
    facts = _overview(view)
    latent = [s.name for s in view.resolved.stages if s.output.latent]
    classes = view.resolved.num_classes
    return {
        "name": view.name,
        "description": "" if alone else view.resolved.spec.description,
        "facts": [(name, value) for name, value in facts if value is not None],
        "unrecorded": [name.lower() for name, value in facts if value is None],
        "lacks": {topic: _reason(view, topic) for topic in _TOPICS},
        "samples": None if view.samples is None else inline_picture(view.samples),
        "samples_count": view.count,
        "column_is_label": classes is not None and 4 <= classes <= 12,
        "strip": _inline(view.strip),
        "latent": ", ".join(latent),
        "trajectories": {stage: _inline(shown) for stage, shown in view.trajectories.items()},
        "epochs": {topic: _inline(shown) for topic, shown in view.epochs.items()},
        "figures_missing": _figures_missing(view),
        "attribution": _attribution(view, attribution),
        "attribution_plots": draw_plots([_attribution_bars(attribution)] if attribution else []),
        "worst": _worst(attribution),
        "course": draw_plots(_course(view)),
        "has_course": view.course is not None,
        "dropped": view.course.dropped if view.course else 0,
        "losses": _losses(view),
        "epochs_missing": not (view.recorded and view.recorded.seconds_per_epoch),
        "has_features": view.projection is not None,
    }


def _inline(shown: Shown) -> list[tuple[str, str, InlinePicture]]:
    return [(name, note, inline_picture(image)) for name, note, image in shown]


def _reason(view: ModelView, topic: str) -> str:
    return view.lacks.get(topic, "not recorded")


def _overview(view: ModelView) -> list[tuple[str, object]]:
    spec, recorded = view.resolved.spec, view.recorded
    training = recorded.training if recorded else {}
    seconds, images = training.get("seconds"), training.get("images")
    total = sum(int(row["parameters"]) for row in view.plan) if view.plan else None
    return [
        ("Stages", " → ".join(s.name for s in view.resolved.stages)),
        ("Output", str(view.resolved.image)),
        ("Parameters", None if total is None else f"{total:,}"),
        ("Data", view.resolved.data_info.title or spec.data.source),
        ("Trained on", None if not isinstance(images, float) else f"{images:,.0f} images"),
        ("Training", None if not isinstance(seconds, float) else f"{number(seconds)} seconds"),
        ("Device", training.get("device")),
        ("Precision", training.get("precision")),
        ("Licence", spec.license),
    ]


def figure_value(figure: Figure) -> str:
    """A figure's value with spread and unit, scaled as on a card: KID times 1000."""
    return f"{spread(figure.value, figure.std, _scale(figure))} {_unit(figure)}".strip()


def _scale(figure: Figure) -> float:
    return metric_texts(figure.metric).scale


def _unit(figure: Figure) -> str:
    scale = _scale(figure)
    power = "x 10⁻³" if scale == 1000.0 else "" if scale == 1.0 else f"/ {scale:g}"
    return " ".join(part for part in (power, figure.unit) if part)


def _figures_missing(view: ModelView) -> str:
    if view.recorded is None:
        return f"{view.name} has no metrics.json."
    return "" if view.recorded.figures else f"{view.name}: no figures were recorded."


def _figures(views: Sequence[ModelView]) -> PageTable | None:
    """The figures of one model and how they were measured, or of several models side by side."""
    by_model = {
        v.name: {f.name: f for f in (v.recorded.figures if v.recorded else ())} for v in views
    }
    names = dict.fromkeys(name for figures in by_model.values() for name in figures)
    if not names:
        return None
    if len(views) == 1:
        figures = by_model[views[0].name].values()
        columns = [Column("figure"), Column("value", numeric=True), Column("how it was measured")]
        rows: list[Row] = [[_code(f.name), _figure_cell(f), _how(f)] for f in figures]
        return PageTable(columns, rows, label="Figures")
    columns = [Column("figure"), *[Column(view.name, numeric=True) for view in views]]
    compared: list[Row] = [
        [_code(name), *[_figure_cell(by_model[view.name].get(name)) for view in views]]
        for name in names
    ]
    return PageTable(columns, compared, label="Figures of all models")


def _how_table(views: Sequence[ModelView]) -> PageTable:
    rows: list[Row] = [
        [view.name, _code(f.name), _how(f)]
        for view in views
        for f in (view.recorded.figures if view.recorded else ())
    ]
    columns = [Column("model"), Column("figure"), Column("how it was measured")]
    return PageTable(columns, rows, label="How the figures were measured")


def _code(text: str) -> TableCell:
    return TableCell(text, value=text, code=True)


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
    texts = [" ".join(parts)]
    if figure.extractor is not None:
        version = f" {figure.extractor_version}" if figure.extractor_version else ""
        texts.append(f"extractor {figure.extractor}{version}, {figure.precision or 'fp32'}")
    if figure.subsets is not None and figure.subset_size is not None:
        texts.append(f"{figure.subsets} subsets of {figure.subset_size:,}")
    for name, value in (
        ("resolution", figure.resolution), ("seed", figure.seed), ("on", figure.device)
    ):  # fmt: skip
        if value is not None:
            texts.append(f"{name} {value}")
    return "; ".join([*texts, *([figure.note] if figure.note else [])])


def _stages(views: Sequence[ModelView]) -> PageTable:
    alone = len(views) == 1
    columns = [
        *([] if alone else [Column("model")]),
        Column("stage"),
        Column("kind"),
        Column("output"),
        Column("parameters", numeric=True),
        Column("FLOPs", numeric=True, note="per forward pass"),
        Column("passes", numeric=True, note="per image"),
        Column("FLOPs", numeric=True, note="per image"),
    ]
    rows: list[Row] = []
    for view in views:
        for row in view.plan:
            cells: list[TableCell | str | float | None] = [] if alone else [view.name]
            cells += [str(row["name"]), str(row["kind"]), str(row["output"])]
            cells.append(TableCell(f"{row['parameters']:,}", value=row["parameters"]))
            cells += [_count(row["flops_forward"]), row["evaluations"], _count(row["flops_sample"])]
            rows.append(cells)
    return PageTable(columns, rows, label="Parameters and FLOPs of each stage")


def _count(value: float | None) -> TableCell | None:
    return None if value is None else TableCell(short(value), value=value)


def _shares(view: ModelView, alone: bool) -> Bars | None:
    """The stages' shares of the parameters and of the sampling cost."""
    if len(view.plan) < 2:
        return None
    names = {"parameters": "parameters", "flops_sample": "FLOPs per image"}
    totals = {key: sum(row[key] or 0 for row in view.plan) for key in names}
    groups = [
        (
            str(row["name"]),
            [None if row[k] is None else 100.0 * row[k] / (totals[k] or 1) for k in names],
        )
        for row in view.plan
    ]
    title = "Parameters and sampling cost by stage" + ("" if alone else f": {view.name}")
    return Bars(title, "% of the cascade", list(names.values()), groups)


def _attribution(view: ModelView, rows: Sequence[Attribution]) -> PageTable | None:
    if not rows:
        return None
    columns = [
        Column("stage"),
        Column("real input", numeric=True),
        Column("generated input", numeric=True),
        Column("mismatch", numeric=True),
        Column("share", numeric=True, note="of the whole figure"),
    ]
    return PageTable(
        columns, map(_attribution_cells, rows), label=f"Attribution by stage of {view.name}"
    )


def _attribution_cells(row: Attribution) -> Row:
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


def _attribution_bars(rows: Sequence[Attribution]) -> Bars:
    def value(figure: Figure | None) -> float | None:
        return None if figure is None else figure.value * _scale(figure)

    metrics = sorted({f.metric for r in rows for f in (r.real, r.generated) if f is not None})
    label = " and ".join(axis_label(metric) for metric in metrics)
    better = {metric_texts(metric).better for metric in metrics}
    groups = [(row.stage, [value(row.real), value(row.generated)]) for row in rows]
    names = ["real input", "generated input"]
    note = f"{str(better.pop()).capitalize()} is better." if len(better - {None}) == 1 else ""
    return Bars("Output of each stage by its input", label, names, groups, note)


def _worst(rows: Iterable[Attribution]) -> str:
    """Which stage to improve: by share, since earlier stages may cause a mismatch."""
    known = [(row.share, row.stage) for row in rows if row.share is not None and row.share > 0]
    if not known:
        return ""
    share, stage = max(known)
    return f"Stage {stage} accounts for most of the figure, {share:.0%}. Improve that stage first."


def _course(view: ModelView) -> list[Chart]:
    if view.course is not None:
        return course_charts(view.course)
    return recorded_charts(view.recorded) if view.recorded else []


def _losses(view: ModelView) -> PageTable | None:
    """The last losses of a model without events."""
    if view.course is not None or view.recorded is None or not view.recorded.losses:
        return None
    rows: list[Row] = [
        [phase, name, value]
        for phase, losses in view.recorded.losses.items()
        for name, value in losses.items()
    ]
    columns = [Column("phase"), Column("loss"), Column("at the end", numeric=True)]
    return PageTable(columns, rows, label=f"Last losses of {view.name}")


def _epochs(views: Sequence[ModelView]) -> PageTable | None:
    seconds = {v.name: v.recorded.seconds_per_epoch if v.recorded else {} for v in views}
    phases = dict.fromkeys(phase for row in seconds.values() for phase in row)
    if not phases:
        return None
    alone = len(views) == 1
    heads = [
        Column("seconds" if alone else v.name, True, "" if alone else "seconds") for v in views
    ]
    rows: list[Row] = [[phase, *[seconds[v.name].get(phase) for v in views]] for phase in phases]
    return PageTable([Column("phase"), *heads], rows, label="Seconds per epoch of each phase")


def _features(views: Sequence[ModelView]) -> Mapping[str, Any]:
    shown = [(v.name, v.projection) for v in views if v.projection is not None]
    alone = len(views) == 1
    charts = [projection_chart(p, "Feature plane" if alone else name) for name, p in shown]
    return {
        "plots": draw_plots([*charts, *(chart for view in views for chart in view.by_class)]),
        "extractors": ", ".join(sorted({p.extractor for _, p in shown})),
        "pca": {p.method for _, p in shown} == {"pca"},
    }
