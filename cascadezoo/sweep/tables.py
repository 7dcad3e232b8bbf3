"""Writes the results of a sweep as JSON, CSV and Markdown. Does not import torch."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cascadezoo.sweep.cells import Sweep
from cascadezoo.sweep.results import CellResult, Correlation, GroupResult, SweepResults
from cascadezoo.sweep.variance import Best, Variance
from cascadezoo.util.files import write_atomically
from cascadezoo.util.numbers import spread
from cascadezoo.util.text import clean, markdown_text

__all__ = [
    "best_text",
    "correlation_lines",
    "describe_settings",
    "to_csv",
    "to_markdown",
    "variance_text",
    "write_tables",
]

NONE = "-"
KID_SCALE = 1000


def write_tables(results: SweepResults, folder: Path) -> None:
    """Write results.json, results.csv and RESULTS.md, each atomically.

    Args:
        results: the results so far.
        folder: the sweep's folder; RESULTS.md shows the plots in it.

    Raises:
        OSError: the folder is not writable.
    """
    text = json.dumps(results.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(folder / "results.json", text.encode())
    write_atomically(folder / "results.csv", to_csv(results).encode())
    plots = sorted(p.name for p in (folder / "plots").glob("*.png"))
    write_atomically(folder / "RESULTS.md", to_markdown(results, plots).encode())


def to_csv(results: SweepResults) -> str:
    """One row per cell, with numbers in full precision and empty fields for missing values."""
    stages = _stage_names(results)
    head = ["cell", "state", *results.axes]
    head += [f"{name} {column}" for name in stages for column in ("kind", "parameters")]
    head += ["parameters", *_NUMBERS, "device", "run", "error"]
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(head)
    for cell in results.cells:
        by_name = {stage.name: stage for stage in cell.stages}
        row: list[Any] = [cell.name, cell.state, *(cell.labels[axis] for axis in results.axes)]
        for name in stages:
            stage = by_name.get(name)
            row += [stage and stage.kind, stage and stage.parameters]
        row += [cell.parameters, *(getattr(cell, name) for name in _NUMBERS)]
        row += [cell.device, cell.run, _line(cell.error or "")]
        rows.writerow(["" if value is None else value for value in row])
    return out.getvalue()


def to_markdown(results: SweepResults, plots: Sequence[str] = ()) -> str:
    """The results as Markdown.

    Args:
        results: the results so far.
        plots: the file names in ``plots/``.
    """
    parts = [f"# {_plain(results.name)}", _plain(results.description), _status(results)]
    parts += [_plain(note) for note in results.notes]
    parts += ["## Cells", _cells(results), _how(results)]
    if any(len(group.cells) > 1 for group in results.groups):
        parts += ["## Over seeds", _groups(results)]
    if results.correlation is not None:
        words = correlation_lines(results.correlation)
        parts += ["## Parameters or combination?", *(_plain(text) for text in words)]
    if results.variance is not None:
        parts += ["## Which axis decides?", _plain(variance_text(results.variance))]
        parts += [_effects(results.variance)] if results.variance.effects else []
    if results.best is not None:
        parts += ["## As good as the best", _plain(best_text(results.best))]
    if plots:
        parts += ["## Plots"]
        parts += [f"![{_plain(_title(name))}](plots/{name})" for name in plots]
    unfinished = [cell for cell in results.cells if cell.error and cell.state != "done"]
    if unfinished:
        rows = [f"- `{c.name}` {c.state}: {_plain(c.error or '')}" for c in unfinished]
        parts += ["## Failed and stopped cells", "\n".join(rows)]
    facts = {**results.settings, **{k: v for k, v in results.machine.items() if v}}
    rows = [f"| {_plain(str(name))} | {_plain(_value(value))} |" for name, value in facts.items()]
    parts += ["## Settings and machine", "\n".join(["| setting | value |", "| --- | --- |", *rows])]
    return "\n\n".join(part for part in parts if part) + "\n"


def correlation_lines(result: Correlation) -> list[str]:
    """The correlation of parameters and KID in sentences."""
    test = (
        f"Parameter count against KID over {result.n} combinations: {_rank(result.rho, result.p)}. "
        "A negative rho means that more parameters come with a lower, better KID. p is the "
        "probability of a rho at least as far from 0 if the two are independent "
        f"({_METHOD[result.method]})."
    )
    lines = [test]
    if result.within:
        rows = [
            f"{row.axis} {row.label} (n = {row.n}): {_rank(row.rho, row.p)}"
            for row in result.within
        ]
        lines.append("Among the combinations that share a stage: " + "; ".join(rows) + ".")
    return lines


def variance_text(result: Variance) -> str:
    """What the shares of variance mean, or why there are none."""
    if result.refused:
        return (
            f"Not computed: {result.refused}. Shares of variance need every combination of the "
            "axes with the same number of seeds. On other grids they overlap, and an axis gets "
            "what another one causes."
        )
    seeds = (
        "With one seed there is no test: the interaction of all axes includes chance."
        if result.seeds is None
        else f"Seeds cause {result.seeds:.1%}. p is that of an F-test against the seeds."
    )
    interval = (
        " The interval of 90 % resamples the seeds of each combination."
        if any(effect.low is not None for effect in result.effects)
        else ""
    )
    return (
        "Shares of the variance of KID over all cells, by analysis of variance. An interaction is "
        f"what axes cause together beyond what each causes alone. {seeds}{interval}"
    )


def best_text(result: Best) -> str:
    """Which combinations are not distinguishable from the best one."""
    tied = [f"{r.name} (+{KID_SCALE * r.difference:.3g}, p = {r.p:.2g})" for r in result.tied]
    others = len(result.rivals)
    start = (
        f"{result.name} has the lowest KID of {others + 1} combinations with several seeds, "
        f"{KID_SCALE * result.mean:.3g} x 10^-3. By Tukey's range test over all pairs, which "
        "corrects for the choice of the best, "
    )
    if not tied:
        return f"{start}it differs from each of the others (p < 0.05)."
    return (
        f"{start}{len(tied)} of the other {others} cannot be distinguished from it: "
        f"{', '.join(tied)}."
    )


def _effects(result: Variance) -> str:
    rows = ["| effect | share of variance | 90 % interval | p |", "| --- | ---: | ---: | ---: |"]
    for effect in result.effects:
        ends = NONE if effect.low is None else f"{effect.low:.1%} to {effect.high:.1%}"
        p = NONE if effect.p is None else f"{effect.p:.2g}"
        rows.append(f"| {_plain(effect.name)} | {effect.share:.1%} | {ends} | {p} |")
    return "\n".join(rows)


def describe_settings(sweep: Sweep) -> dict[str, Any]:
    """Summarize the base of all cells and the axes."""
    spec = sweep.base.spec
    training, evaluation = spec.training, spec.evaluation
    optimizer, schedule = training.optimizer, training.schedule
    phases = []
    for phase in training.phases or []:
        forcing = phase.teacher_forcing
        length = f"{phase.epochs} epochs" if phase.epochs else f"{phase.steps} steps"
        forced = (
            ""
            if forcing.start == forcing.end == 1
            else f", forcing {forcing.start:g} -> {forcing.end:g}"
        )
        batch = f", batches of {phase.batch_size}" if phase.batch_size else ""
        phases.append(f"{phase.name} {length}{batch}{forced}")
    rate = f"{optimizer.kind} {optimizer.lr:g}, {schedule.kind}"
    if schedule.kind == "step":
        rate += f" {schedule.step_epochs} x {schedule.gamma:g}"
    metrics = ", ".join(str(metric) for metric in _names(evaluation.metrics)) or "none"
    settings: dict[str, Any] = {
        "base": spec.name,
        "data": f"{spec.data.source}, {spec.data.size}x{spec.data.size}",
        "batch": training.batch_size,
        "optimizer": rate,
        "phases": "; ".join(phases),
        "figures": f"{metrics} of {evaluation.samples} samples, {evaluation.extractor}, "
        f"against {evaluation.split}",
        "seed": spec.seed,
    }
    for axis in sweep.spec.axes:
        labels = dict.fromkeys(cell.labels[axis.name] for cell in sweep.cells)
        settings[f"axis {axis.name}"] = f"{axis.path}: {', '.join(labels)}"
    if sweep.spec.match_parameters:
        rows = [f"{name} {count:,}" for name, count in sweep.spec.match_parameters.items()]
        settings["parameters matched to"] = ", ".join(rows)
    if sweep.spec.match_flops is not None:
        settings["training FLOPs matched to"] = f"{sweep.spec.match_flops:.3g}"
    return settings


_NUMBERS = (
    "kid",
    "kid_std",
    "kid_name",
    "kid_mean",
    "kid_mean_name",
    "lpips",
    "lpips_name",
    "seconds_per_epoch",
    "training_seconds",
    "images_per_second",
)

_METHOD = {
    "exact": "exact, over all permutations",
    "t": "Student's t with n - 2 degrees of freedom",
    None: "not defined",
}


def _names(metrics: Iterable[object]) -> list[str]:
    """The names of metrics, which are strings or entries with a kind."""
    return [m if isinstance(m, str) else str(getattr(m, "kind", m)) for m in metrics]


def _status(results: SweepResults) -> str:
    counts = dict.fromkeys(("done", "failed", "stopped", "waiting"), 0)
    for cell in results.cells:
        counts[cell.state] += 1
    listed = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    return f"{len(results.cells)} cells: {listed}. Started {results.started}."


def _cells(results: SweepResults) -> str:
    stages = _stage_names(results)
    head = ["cell", *stages, "parameters", "KID", "mean KID", "LPIPS", "s/epoch", "images/s"]
    rows = []
    for cell in results.cells:
        by_name = {stage.name: stage for stage in cell.stages}
        row = [f"`{cell.name}`"]
        for name in stages:
            stage = by_name.get(name)
            count = "" if stage is None or stage.parameters is None else f" {stage.parameters:,}"
            row.append(NONE if stage is None else f"{stage.kind}{count}")
        row.append(_number(cell.parameters, ",.0f"))
        if cell.state == "done":
            row.append(_spread(cell.kid, cell.kid_std, 1000))
        else:
            row.append(cell.state)
        row += [
            _spread(cell.kid_mean, None, 1000),
            _number(cell.lpips, ".4f"),
            _number(cell.seconds_per_epoch, ".2f"),
            _number(cell.images_per_second, ".1f"),
        ]
        rows.append(row)
    return _table(head, rows, left=1 + len(stages))


def _groups(results: SweepResults) -> str:
    head = ["combination", "seeds", "parameters", "KID", "mean KID", "LPIPS", "s/epoch", "images/s"]
    rows = [
        [
            f"`{group.name}`",
            f"{group.count} of {len(group.cells)}",
            _number(group.parameters, ",.0f"),
            _over(group, "kid", 1000),
            _over(group, "kid_mean", 1000),
            _over(group, "lpips", 1, 4),
            _over(group, "seconds_per_epoch", 1),
            _over(group, "images_per_second", 1, 1),
        ]
        for group in results.groups
    ]
    text = "Mean +- standard deviation over the finished seeds; a single seed has no spread."
    return f"{text}\n\n{_table(head, rows, left=1)}"


def _how(results: SweepResults) -> str:
    """The figures of the table and their settings."""
    lines = []
    for measure, attribute, scale in (("KID", "kid_name", True), ("LPIPS", "lpips_name", False)):
        names = dict.fromkeys(getattr(cell, attribute) for cell in results.done)
        for name in [name for name in names if name]:
            lines.append(f"- {measure}: {_figure(results.done, name)}{' x 10^-3' if scale else ''}")
    names = dict.fromkeys(cell.kid_mean_name for cell in results.cells)
    lines += [
        f"- mean KID: mean of the `{name}` measured during training, x 10^-3"
        for name in names
        if name
    ]
    return "\n".join(lines)


def _figure(cells: Iterable[CellResult], name: str) -> str:
    row = next((f for cell in cells for f in cell.figures if f["name"] == name), {})
    parts = [f"`{name}`"]
    if row.get("n"):
        parts.append(f"{row['n']:,} samples")
    if row.get("n_real"):
        parts.append(f"{row['n_real']:,} real images ({row.get('split', 'data')})")
    if row.get("subsets"):
        parts.append(f"+- over {row['subsets']} subsets of {row.get('subset_size'):,}")
    if row.get("extractor"):
        parts.append(f"extractor {_plain(row['extractor'])} in {row.get('precision', 'fp32')}")
    return ", ".join(parts)


def _stage_names(results: SweepResults) -> list[str]:
    return list(dict.fromkeys(stage.name for cell in results.cells for stage in cell.stages))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, left: int) -> str:
    marks = ["---"] * left + ["---:"] * (len(head) - left)
    lines = [head, marks, *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


def _over(group: GroupResult, measure: str, scale: float, digits: int = 2) -> str:
    return _spread(group.mean(measure), group.std(measure), scale, digits)


def _spread(value: float | None, std: float | None, scale: float, digits: int = 2) -> str:
    if value is None:
        return NONE
    return spread(value, std, scale, decimals=digits)


def _number(value: float | None, form: str) -> str:
    return NONE if value is None else format(value, form)


def _rank(rho: float | None, p: float | None) -> str:
    return (
        "the correlation is not defined"
        if rho is None or p is None
        else f"rho = {rho:.2f}, p = {p:.2g}"
    )


def _title(name: str) -> str:
    return name.removesuffix(".png").replace("-", " ").replace("_", " ")


def _value(value: object) -> str:
    return ", ".join(str(v) for v in value) if isinstance(value, list) else str(value)


def _line(text: str) -> str:
    return " ".join(text.split())


def _plain(text: str) -> str:
    """Text of a spec or of an error as Markdown, with control characters escaped."""
    return markdown_text(clean(_line(text)))
