"""``cascadezoo build``."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

import click

from cascadezoo.cli.options import (
    device_option,
    examples,
    json_option,
    seed_option,
    set_option,
    spec_argument,
)
from cascadezoo.cli.output import clean, echo, echo_json
from cascadezoo.util.numbers import human_seconds
from cascadezoo.util.processes import process_count, process_rank

if TYPE_CHECKING:
    from cascadezoo.build.build import BuildResult


@click.command(
    "build",
    epilog=examples(
        "cascadezoo build shapes-demo",
        "cascadezoo build my.json -o runs/try2 --set training.batch_size=64 --seed 1",
        "cascadezoo build paper-baseline --dry-run",
    ),
)
@spec_argument
@click.option("-o", "--out", metavar="DIR", help="The run folder.  [default: runs/NAME]")
@set_option
@seed_option("Overrides the spec's seed.")
@device_option()
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16", "fp16"]),
    help="Overrides the spec's precision.",
)
@click.option(
    "--resume/--fresh",
    default=None,
    help="Require a build in DIR to resume, or start it over.  "
    "[default: resume if DIR contains a build]",
)
@click.option("--dry-run", is_flag=True, help="Show the plan and write nothing.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@json_option
def command(
    spec: str,
    out: str | None,
    settings: tuple[str, ...],
    seed: int | None,
    device: str,
    precision: str | None,
    resume: bool | None,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Build a cascade from a spec: assemble, train, evaluate, write.

    SPEC is a file, - for standard input, or the name of a shipped spec (cascadezoo specs list).
    To resume a stopped build, run the same command again.
    """
    if dry_run:
        from cascadezoo.cli.plan import run_plan

        changes = [*settings]
        changes += [f"seed={seed}"] if seed is not None else []
        changes += [f"training.precision={precision}"] if precision is not None else []
        run_plan(spec, changes, device, as_json)
        return
    if process_count() > 1:
        # Torch would warn in each process that unused parameters were looked for and not found.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from cascadezoo.build.build import build_cascade
    from cascadezoo.train.progress import make_progress

    # Of the processes that torchrun starts, only the first prints.
    first = process_rank() == 0
    result = build_cascade(
        spec,
        out,
        settings=settings,
        seed=seed,
        device=device,
        precision=precision,
        resume=resume,
        progress=make_progress(quiet or not first),
    )
    if not first:
        return
    if as_json:
        echo_json(result.to_dict())
    else:
        _show(result)


def _show(result: BuildResult) -> None:
    run = clean(result.run)
    if result.already_done:
        echo(f"{run} is already built; --fresh starts over")
    else:
        echo(f"built {run} in {human_seconds(result.seconds)}")
    echo(f"model: {clean(result.model)}")
    for figure in result.figures:
        echo(f"  {clean(figure)}")
    for warning in result.warnings:
        echo(f"warning: {clean(warning)}", err=True)
    if result.published is not None:
        commit = f", commit {clean(result.commit)}" if result.commit else ""
        echo(f"published: {clean(result.published)}{commit}")
    echo(f"next: cascadezoo sample {shlex.quote(str(result.run))}")
