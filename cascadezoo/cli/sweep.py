"""``cascadezoo sweep``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from cascadezoo.cli.completion import complete_sweeps
from cascadezoo.cli.options import Whole, device_option, examples, json_option, set_option
from cascadezoo.cli.output import clean, echo, echo_json, table
from cascadezoo.util.numbers import human_count, spread

if TYPE_CHECKING:
    from cascadezoo.sweep.results import SweepResults


@click.command(
    "sweep",
    epilog=examples(
        "cascadezoo sweep --list",
        "cascadezoo sweep shapes-ablation-tiny --dry-run",
        "cascadezoo sweep mine.json -o sweeps/mine --jobs 2",
        "cascadezoo sweep mine.json -o sweeps/mine --only generator=dae --fresh",
        "cascadezoo sweep cifar10-cascades -o pay --set match_flops=1e15",
        "cascadezoo sweep paper-ablation --executor ray --ray-address auto",
    ),
)
@click.argument("sweep", required=False, shell_complete=complete_sweeps)
@click.option("-o", "--out", metavar="DIR", help="The sweep's folder.  [default: sweeps/NAME]")
@set_option
@click.option(
    "--only",
    multiple=True,
    metavar="AXIS=LABEL",
    help="Build only these cells; AXIS=LABEL,LABEL for several labels.",
)
@click.option(
    "-j",
    "--jobs",
    type=Whole(1, 10_000),
    metavar="N",
    help="Number of parallel cells.  [default: 1; on Ray as many as resources allow]",
)
@click.option(
    "--executor",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Run processes on this machine, or tasks on a Ray cluster.",
)
@click.option(
    "--ray-address",
    metavar="ADDRESS",
    help="A running Ray cluster.  [default: RAY_ADDRESS, or a new one on this machine]",
)
@device_option()
@click.option("--fresh", is_flag=True, help="Start over; with --only, restart only those cells.")
@click.option("--no-retry", is_flag=True, help="Skip cells that failed before.")
@click.option("--dry-run", is_flag=True, help="List the cells and write nothing.")
@click.option("--list", "list_", is_flag=True, help="List the sweeps that ship with cascadezoo.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    sweep: str | None,
    out: str | None,
    settings: tuple[str, ...],
    only: tuple[str, ...],
    jobs: int | None,
    executor: Literal["local", "ray"],
    ray_address: str | None,
    device: str,
    fresh: bool,
    no_retry: bool,
    dry_run: bool,
    list_: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Build every combination of a sweep's axes and compare them.

    SWEEP is a file, - for standard input, or the name of a shipped sweep (--list). Each cell is a
    separate build. To resume a stopped sweep and retry failed cells, run the same command again.
    Exits with 1 if any cell is not done.
    """
    if list_:
        _list(as_json)
        return
    if sweep is None:
        raise click.UsageError("Missing argument 'SWEEP'.", ctx)
    if dry_run:
        _dry_run(sweep, settings, only, as_json)
        return
    from cascadezoo.sweep.run_sweep import run_sweep

    results = run_sweep(
        sweep,
        out,
        settings=settings,
        only=only,
        jobs=jobs,
        executor=executor,
        ray_address=ray_address,
        device=device,
        retry=not no_retry,
        fresh=fresh,
        progress=None if quiet else lambda line: echo(line, err=True),
    )
    if as_json:
        echo_json(results.to_dict())
    else:
        _show(results, Path(out) if out is not None else Path("sweeps") / results.name)
    conditions = [condition.partition("=") for condition in only]
    selected = [
        cell
        for cell in results.cells
        if all(cell.labels[axis] in labels.split(",") for axis, _, labels in conditions)
    ]
    if any(cell.state != "done" for cell in selected):
        ctx.exit(1)


def _list(as_json: bool) -> None:
    from cascadezoo.sweep.spec import read_sweep, shipped_sweeps

    rows: list[dict[str, Any]] = []
    for name in shipped_sweeps():
        data, _, _ = read_sweep(name)
        rows.append({"name": name, "description": data.get("description", "")})
    if as_json:
        echo_json(rows)
    else:
        echo(table(("SWEEP", "DESCRIPTION"), [(r["name"], r["description"]) for r in rows]))


def _dry_run(source: str, settings: tuple[str, ...], only: tuple[str, ...], as_json: bool) -> None:
    """List the cells with their labels, parameters and FLOPs."""
    from cascadezoo.sweep.cell_plans import plan_cells
    from cascadezoo.sweep.cells import load_sweep

    sweep = load_sweep(source, settings=settings)
    cells = sweep.choose(only)
    plans = plan_cells(cells, device="cpu", memory=False)
    stages = list(dict.fromkeys(s.name for cell in cells for s in plans[cell.name].stages))
    if as_json:
        rows = [
            {
                "name": cell.name,
                "labels": cell.labels,
                "parameters": plans[cell.name].parameters,
                "training_flops": plans[cell.name].total_flops,
                "sampling_flops": plans[cell.name].sampling_flops,
                "stages": [
                    {"name": s.name, "kind": s.kind, "parameters": s.parameters}
                    for s in plans[cell.name].stages
                ],
                "digest": cell.digest,
            }
            for cell in cells
        ]
        echo_json({"name": sweep.name, "axes": sweep.axes, "cells": rows})
        return
    lines = []
    for cell in cells:
        counts = {s.name: s.parameters for s in plans[cell.name].stages}
        shown = [human_count(counts.get(name)) for name in stages]
        plan = plans[cell.name]
        flops = (plan.total_flops, plan.sampling_flops)
        lines.append((cell.name, *shown, human_count(plan.parameters), *map(human_count, flops)))
    head = ("CELL", *(name.upper() for name in stages), "PARAMETERS", "TO TRAIN", "TO SAMPLE")
    echo(table(head, lines, right=range(1, len(head))))
    echo(f"{len(cells)} of {len(sweep.cells)} cells of {sweep.name}; nothing was written")


def _show(results: SweepResults, folder: Path) -> None:
    rows = [
        (
            cell.name,
            cell.state,
            human_count(cell.parameters),
            _scaled(cell.kid, cell.kid_std),
            _scaled(cell.kid_mean),
            None if cell.lpips is None else f"{cell.lpips:.4f}",
            None if cell.seconds_per_epoch is None else f"{cell.seconds_per_epoch:.2f}",
            None if cell.images_per_second is None else f"{cell.images_per_second:.1f}",
        )
        for cell in results.cells
    ]
    head = ("CELL", "STATE", "PARAMETERS", "KID", "MEAN KID", "LPIPS", "S/EPOCH", "IMAGES/S")
    echo(table(head, rows, right=range(2, len(head))))
    echo("KID x 10^-3")
    for note in results.notes:
        echo(note)
    for cell in results.cells:
        if cell.error is not None:
            echo(f"{cell.state}: {cell.name}: {cell.error}")
    echo(f"results: {clean(folder / 'RESULTS.md')}, results.html, results.csv, results.json")


def _scaled(value: float | None, std: float | None = None) -> str | None:
    if value is None:
        return None
    return spread(value, std, 1000, decimals=2)
