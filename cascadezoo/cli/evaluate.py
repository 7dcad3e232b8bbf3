"""``cascadezoo evaluate``."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from cascadezoo.cli.options import (
    Whole,
    compile_option,
    device_option,
    examples,
    hub_options,
    json_option,
    model_argument,
    seed_option,
    set_option,
    trust_data_option,
)
from cascadezoo.cli.output import clean, echo, echo_json, table
from cascadezoo.util.numbers import human_seconds
from cascadezoo.util.processes import process_count, process_rank

if TYPE_CHECKING:
    from cascadezoo.evaluate.card_check import CheckReport, CheckRow
    from cascadezoo.evaluate.evaluate_model import Evaluation
    from cascadezoo.model_folder.figures import Figure
    from cascadezoo.model_folder.metrics_file import AttributionRow

_NOT_WITH_CHECK = ("n", "seed", "extractor", "precision", "split", "save")


def _listed(_ctx: click.Context, _parameter: click.Parameter, text: str | None) -> list[str] | None:
    if text is None:
        return None
    names = [part.strip() for part in text.split(",") if part.strip()]
    if not names:
        raise click.BadParameter("name at least one metric, or all")
    return names


@click.command(
    "evaluate",
    epilog=examples(
        "cascadezoo evaluate runs/shapes-demo",
        "cascadezoo evaluate runs/cifar10 --metrics kid,fid --extractor inception -n 10000 --save",
        "cascadezoo evaluate org/digits --set data.config.path=digits.npz --stages",
        "cascadezoo evaluate org/digits --check",
    ),
)
@model_argument()
@click.option(
    "--metrics",
    callback=_listed,
    metavar="A,B,...",
    help="The metrics: kid, fid, ..., or all.  [default: the spec's]",
)
@click.option(
    "-n",
    "--count",
    "--n",
    "n",
    type=Whole(1, 10_000_000),
    metavar="N",
    help="Number of sampled images.  [default: the spec's]",
)
@seed_option("Seed of the noise and of the metrics.  [default: the spec's]")
@click.option(
    "--extractor",
    metavar="NAME",
    help="Feature extractor: small, inception, timm:MODEL, or a plugin's.  [default: the spec's]",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16"]),
    help="Precision of the extractor.  [default: the spec's]",
)
@click.option(
    "--split",
    type=click.Choice(["train", "test"]),
    help="The real images to compare with.  [default: the spec's]",
)
@click.option(
    "--stages", is_flag=True, help="Show which stage loses quality, on real and generated images."
)
@click.option("--check", is_flag=True, help="Recompute the card's figures and compare.")
@click.option("--save", is_flag=True, help="Write the figures into metrics.json and onto the card.")
@set_option
@trust_data_option
@click.option(
    "--batch-size",
    type=Whole(1, 1_000_000),
    metavar="N",
    help="Images per batch.  [default: the spec's]",
)
@device_option()
@compile_option
@hub_options
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    model: str,
    metrics: list[str] | None,
    check: bool,
    quiet: bool,
    as_json: bool,
    offline: bool,
    **options: Any,
) -> None:
    """Evaluate a model, or check the figures on its card.

    Metrics that cannot be measured here are listed with the reason, and the others are measured.
    The exit code is 2 if such a metric was requested by name, or if no metric can be measured.
    --check takes the samples, seed and extractor of each figure from the card. It exits with 1 if
    a value is outside the tolerance that the card states. --set changes data.* and evaluation.* of
    the model's spec, for example the path of the images on this machine.
    """
    conflicts = [name for name in _NOT_WITH_CHECK if options[name] not in (None, False)]
    if check and conflicts:
        option = "-n" if conflicts[0] == "n" else f"--{conflicts[0]}"
        raise click.UsageError(f"--check takes its settings from the card; remove {option}")
    chosen = options.pop("compile_")
    if check and chosen != "no":
        raise click.UsageError("--check takes its settings from the card; remove --compile")
    options |= {"offline": offline or None}
    from cascadezoo.train.progress import make_progress

    progress = make_progress(quiet or process_rank() > 0)
    try:
        if check and process_count() > 1:
            raise click.UsageError("--check needs a single process")
        if check:
            from cascadezoo.evaluate.check_model import check_model

            for name in _NOT_WITH_CHECK:
                del options[name]
            report = check_model(model, metrics, progress=progress, **options)
        else:
            from cascadezoo.evaluate.evaluate_model import evaluate_model

            requested: Any = "all" if metrics == ["all"] else metrics
            result = evaluate_model(
                model, requested, progress=progress, compile_networks=chosen, **options
            )
    finally:
        progress.close()
    if process_rank() > 0:
        return  # the first process prints
    if check:
        echo_json(report.to_dict()) if as_json else _show_check(report)
        ctx.exit(0 if report.ok else 1)
    echo_json(result.to_dict()) if as_json else _show(result, model)
    if not result.ok:
        what = ", ".join(result.refused) if result.refused else "nothing"
        verb = "cannot be" if result.refused else "can be"
        echo(f"Error: {clean(what)} {verb} measured here", err=True)
        ctx.exit(2)


def _show(result: Evaluation, model: str) -> None:
    parts = []
    if result.figures:
        figures = [(f.name, f.text, _title(f)) for f in result.figures]
        parts.append(table(("FIGURE", "VALUE", ""), figures, right=(1,)))
    if result.attribution is not None:
        parts += [_stages(result.attribution), result.advice or ""]
    if result.problems:
        reasons = [(p.metric, " ".join(p.error.what.split())) for p in result.problems]
        parts.append(table(("NOT MEASURED", "REASON"), reasons))
    echo("\n\n".join(parts))
    for hint in dict.fromkeys(p.error.hint for p in result.problems if p.error.hint):
        echo(f"Hint: {hint}", err=True)
    echo(f"{clean(result.name)}: {human_seconds(result.seconds)}", err=True)
    if result.saved:
        echo(f"\nwrote metrics.json and README.md in {clean(result.model)}")
        if result.kept:
            echo(f"kept edited parts of the card: {', '.join(result.kept)}")
    elif result.measured:
        echo(f"to save them: cascadezoo evaluate {shlex.quote(model)} ... --save", err=True)


def _stages(attribution: Sequence[AttributionRow]) -> str:
    rows = [
        (
            row.stage,
            row.role,
            None if row.real is None else row.real.text,
            row.generated.text,
            None if row.mismatch is None else _number(row.mismatch, row.generated),
            None if row.share is None else f"{row.share:.0%}",
        )
        for row in attribution
    ]
    head = ("STAGE", "ROLE", "FED REAL", "FED GENERATED", "MISMATCH", "SHARE")
    figure = attribution[-1].generated
    basis = f"{figure.metric}, features of {figure.extractor}, {figure.n} images each"
    return f"{table(head, rows, right=range(2, 6))}\n{clean(basis)}"


def _show_check(report: CheckReport) -> None:
    if report.rows:
        rows = [
            (
                row.name,
                f"{row.stated:.6g}",
                None if row.measured is None else f"{row.measured:.6g}",
                None if row.difference is None else f"{row.difference:+.3g}",
                None if row.tolerance is None else f"{row.tolerance:.3g}",
                _verdict(row),
            )
            for row in report.rows
        ]
        head = ("FIGURE", "STATED", "MEASURED", "DIFFERENCE", "TOLERANCE", "")
        echo(table(head, rows, right=range(1, 5)))
    for fault in report.faults:
        echo(f"fault: {clean(fault)}")
    checked = [row for row in report.rows if row.holds is not None]
    if report.ok:
        echo(f"\nall {len(checked)} figures match" if checked else "\nno figure can be checked")
        return
    failed, faults = len(report.failed), len(report.faults)
    echo(f"\n{failed} of {len(checked)} figures do not match; faults in the files: {faults}")


def _verdict(row: CheckRow) -> str:
    if row.holds:
        return "matches"
    return f"not checked: {row.reason}" if row.holds is None else f"FAILS: {row.reason}"


def _number(value: float, figure: Figure) -> str:
    from cascadezoo.model_folder.reproduction import metric_texts
    from cascadezoo.util.numbers import number, power

    scale = metric_texts(figure.metric).scale
    return f"{number(value * scale)}{power(scale)}"


def _title(figure: Figure) -> str:
    from cascadezoo.model_folder.reproduction import metric_texts

    texts = metric_texts(figure.metric)
    better = f", {texts.better} is better" if texts.better else ""
    return f"{texts.title}{better}"
