"""``cascadezoo report``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cascadezoo.cli.options import (
    Numbers,
    Whole,
    device_option,
    examples,
    json_option,
    per_stage_option,
    seed_option,
)
from cascadezoo.cli.output import clean, echo, echo_json


@click.command(
    "report",
    epilog=examples(
        "cascadezoo report runs/mnist-demo --guidance 0,1,3,7",
        "cascadezoo report runs/mnist-demo --guidance 1,3 --label 4 -n 12 -o fours.png",
    ),
)
@click.argument("model")
@click.option(
    "--guidance",
    "scales",
    type=Numbers(0.0, 1000.0),
    required=True,
    metavar="A,B,...",
    help="Scales of guidance, 0 to 1000, one row each; 1 is none.",
)
@click.option(
    "-n",
    "--count",
    "n",
    type=Whole(1, 256),
    metavar="N",
    help="Images in a row.  [default: one a label, at most 16]",
)
@click.option(
    "--label",
    "labels",
    multiple=True,
    type=Whole(0),
    metavar="L",
    help="The label to draw; several are taken in turn. Default: all, in turn.",
)
@per_stage_option("--steps", int, "a whole number", "Steps of iterative stages: 1 or more.")
@per_stage_option("--sampler", str, "a name", "Sampler of diffusion and flow stages.")
@seed_option("Of the noise, the same in each row.", default=0)
@device_option()
@click.option(
    "-o", "--out", default="guidance.png", show_default=True, metavar="FILE", help="A .png file."
)
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@json_option
def command(
    model: str,
    scales: tuple[float, ...],
    n: int | None,
    labels: tuple[int, ...],
    seed: int,
    device: str,
    out: str,
    quiet: bool,
    as_json: bool,
    **request: Any,
) -> None:
    """Draw what a model does: a grid over guidance scales.

    Each row has one scale of guidance. The images of a column start from the same noise and have
    the same label.
    """
    from cascadezoo.cli.image_files import replacing
    from cascadezoo.cli.model import load_model
    from cascadezoo.errors import InputError
    from cascadezoo.report.guidance import guidance_grid, sample_guidance
    from cascadezoo.train.progress import make_progress

    if Path(out).suffix.lower() != ".png":
        raise InputError(f"the grid is a picture, and {out} is no .png", hint="-o guidance.png")
    with replacing(Path(out)) as file:
        scales = tuple(dict.fromkeys(scales))
        cascade = load_model(model, device)
        classes = cascade.resolved.num_classes
        n = n or min(16, len(labels) or classes or 8)
        turns = labels or tuple(range(classes or 0))
        drawn = [turns[i % len(turns)] for i in range(n)] if turns else None
        progress = make_progress(quiet)
        try:
            progress.task(f"sampling {len(scales)} x {n} images", len(scales) * n)
            rows = sample_guidance(
                cascade,
                scales,
                n,
                options={**request, "seed": seed, "labels": drawn},
                progress=progress.advance,
            )
        finally:
            progress.close()
        names = _names(drawn, cascade.resolved.data_info.class_names)
        guidance_grid(rows, names).save(file, format="PNG")
    if as_json:
        told = {"model": cascade.spec.name, "output": out, "guidance": list(scales)}
        echo_json({**told, "n": n, "seed": seed, "labels": drawn})
    else:
        listed = ", ".join(f"{scale:g}" for scale in rows)
        echo(f"wrote {n} images at guidance {listed} to {clean(out)}")


def _names(labels: list[int] | None, classes: tuple[str, ...] | None) -> list[str] | None:
    """What stands above the columns; None where there is nothing to say."""
    if labels is None:
        return None
    return [classes[label] if classes else f"label {label}" for label in labels]
