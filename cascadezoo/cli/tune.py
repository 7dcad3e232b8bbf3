"""``cascadezoo tune``."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click

from cascadezoo.cli.options import (
    Whole,
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
from cascadezoo.util.numbers import human_seconds, spread

if TYPE_CHECKING:
    from cascadezoo.tune.tune_model import TuneResult


def _listed(_ctx: click.Context, _parameter: click.Parameter, text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _by_name(
    _ctx: click.Context, _parameter: click.Parameter, rows: tuple[str, ...]
) -> dict[str, list[str]]:
    values: dict[str, list[str]] = {}
    for row in rows:
        name, equals, text = row.partition("=")
        if not equals or not name.strip():
            raise click.BadParameter(f"{row!r} does not have the form NAME=A,B,...")
        if name.strip() in values:
            raise click.BadParameter(f"{name.strip()!r} is set twice")
        values[name.strip()] = text.split(",")
    return values


@click.command(
    "tune",
    epilog=examples(
        "cascadezoo tune runs/mnist-ddpm --over steps,guidance",
        "cascadezoo tune runs/cifar10-cdm --over s --values s=0,0.1,0.2,0.3 --write",
        "cascadezoo tune runs/cifar10-cdm --over s --upstream real -o runs/tune-real",
    ),
)
@model_argument()
@click.option(
    "--over",
    required=True,
    callback=_listed,
    metavar="A,B,...",
    help="Settings to search: s, steps, guidance, sampler, eta, restart, sampling_schedule, "
    "truncated; STAGE.NAME for one stage only.",
)
@click.option(
    "--values",
    multiple=True,
    callback=_by_name,
    metavar="NAME=A,B,...",
    help="Values to try for a setting.  [default: from the stage's config]",
)
@click.option(
    "-n",
    "--count",
    "--n",
    "n",
    type=Whole(10, 10_000_000),
    default=1000,
    show_default=True,
    metavar="N",
    help="Number of images per setting.",
)
@click.option(
    "--extractor",
    default="small",
    show_default=True,
    metavar="NAME",
    help="Feature extractor of KID: small, inception, or a plugin's.",
)
@click.option(
    "--upstream",
    type=click.Choice(["generated", "real"]),
    default="generated",
    show_default=True,
    help="Input of the first tuned stage: the images of the stages before it, or downsampled real "
    "images.",
)
@set_option
@trust_data_option
@seed_option("Seed of the noise, the same for all settings.  [default: the spec's]")
@click.option(
    "--batch-size",
    type=Whole(1, 1_000_000),
    metavar="N",
    help="Images per batch.  [default: the spec's]",
)
@click.option("--write", is_flag=True, help="Store the best setting as the model's defaults.")
@device_option()
@hub_options
@click.option(
    "-o", "--out", metavar="DIR", help="Folder for table and plot.  [default: runs/tune-NAME]"
)
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@json_option
def command(
    model: str,
    settings: tuple[str, ...],
    revision: str | None,
    offline: bool,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Search for the sampling settings with the best KID.

    MODEL is a trained model, as for `cascadezoo sample`. Every combination of the values is tried.
    The results are written to tune.json, tune.csv, TUNE.md and tune.png. Low-resolution images are
    sampled once for all settings that differ only in later stages. --set changes data.* and
    evaluation.* of the model's spec, for example the path of the images on this machine.
    """
    from cascadezoo.hub.locate import locate
    from cascadezoo.train.progress import make_progress
    from cascadezoo.tune.tune_model import tune_model

    progress = make_progress(quiet)
    try:
        folder = locate(model, revision, offline or None)
        result = tune_model(folder, settings=settings, progress=progress, **options)
    finally:
        progress.close()
    if as_json:
        echo_json(result.to_dict())
    else:
        _show(result)


def _show(result: TuneResult) -> None:
    from cascadezoo.tune.grid import show

    grid = result.table
    rows = []
    for row in grid.rows:
        mark = "best" if row is grid.best else "~" if grid.close(row) else ""
        cells = [show(row.setting[name]) for name in grid.names]
        kid = spread(row.figure.value, row.figure.std, 1000, decimals=2)
        rows.append((*cells, kid, f"{row.rate:.1f}", mark))
    head = (*(name.upper() for name in grid.names), "KID X 1000", "IMAGES/S", "")
    echo(table(head, rows, right=range(len(head) - 1)))
    figure = grid.best.figure
    echo(
        f"\n{figure.n} images each, features of {clean(figure.extractor)}, seed {figure.seed}; "
        f"{human_seconds(result.seconds)} in all; ~ is within the spread of the best"
    )
    echo(f"wrote {clean(result.folder)}/TUNE.md, tune.csv, tune.json, tune.png")
    if result.written:
        echo(f"{clean(result.model)} now samples with the best setting")
    elif grid.upstream == "generated":
        args = ["--over", ",".join(grid.names)]
        for name, value in grid.best.setting.items():
            args += ["--values", f"{name}={show(value)}"]
        args += ["-n", str(figure.n), "--extractor", str(figure.extractor), "--write"]
        echo(f"to store it: cascadezoo tune {shlex.join([str(result.model), *args])}")
