"""``cascadezoo report``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from cascadezoo.cli.completion import complete_labels
from cascadezoo.cli.options import (
    Numbers,
    Whole,
    device_option,
    examples,
    json_option,
    model_argument,
    per_stage_option,
    seed_option,
    trust_data_option,
)
from cascadezoo.cli.output import clean, echo, echo_json


@click.command(
    "report",
    epilog=examples(
        "cascadezoo report runs/mnist-demo",
        "cascadezoo report runs/one runs/two org/name -o compared.html",
        "cascadezoo report runs/mnist-demo --guidance 0,1,3,7",
        "cascadezoo report runs/mnist-demo --guidance 1,3 --label 4 -n 12 -o fours.png",
    ),
)
@model_argument("models", nargs=-1, required=True, metavar="RUN|MODEL...")
@click.option(
    "--guidance",
    "scales",
    type=Numbers(0.0, 1000.0),
    metavar="A,B,...",
    help="Draw a grid over these guidance scales instead, 0 to 1000, one row each; 1 is none.",
)
@click.option(
    "-n",
    "--count",
    "n",
    type=Whole(1, 256),
    metavar="N",
    help="Number of samples.  [default: four rows; for a grid one per label, at most 16]",
)
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="L",
    shell_complete=complete_labels,
    help="A class to draw, by name or number; several are used in turn.  [default: all]",
)
@per_stage_option("--steps", int, "a whole number", "Steps of iterative stages: 1 or more.")
@per_stage_option("--sampler", str, "a name", "Sampler of diffusion and flow stages.")
@seed_option("Seed of the noise, the same in each row.", default=0)
@click.option(
    "--features",
    type=Whole(0, 100_000),
    metavar="N",
    help="Number of images to plot features of; 0 for none.  [default: 500 if data are available]",
)
@click.option(
    "--extractor",
    default="small",
    show_default=True,
    metavar="NAME",
    help="The feature extractor; pixels plots the pixels themselves.",
)
@click.option(
    "--projection",
    type=click.Choice(["pca", "umap"]),
    default="pca",
    show_default=True,
    help="How features are projected to a plane; umap needs umap-learn.",
)
@trust_data_option
@device_option()
@click.option(
    "-o",
    "--out",
    metavar="FILE",
    help="An .html file; a .png for a grid.  [default: report.html, guidance.png]",
)
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@json_option
def command(
    models: tuple[str, ...],
    scales: tuple[float, ...] | None,
    n: int | None,
    labels: tuple[str, ...],
    seed: int,
    features: int | None,
    extractor: str,
    projection: str,
    trust_data: bool,
    device: str,
    out: str | None,
    quiet: bool,
    as_json: bool,
    **request: Any,
) -> None:
    """Write a self-contained page about one or several models.

    The page shows samples, stages, figures, training curves and costs, with several models side
    by side. --guidance draws a grid instead: each row has one scale, and the images of a column
    start from the same noise and have the same label.
    """
    from cascadezoo.cli.report_page import ReportRequest, write_report
    from cascadezoo.errors import InputError

    if scales is not None:
        if len(models) > 1:
            raise InputError(
                f"--guidance takes one model, not {len(models)}",
                hint="name one model, or omit --guidance to compare them on a page",
                code="input-guidance-one-model",
                count=len(models),
            )
        _grid(models[0], scales, n, labels, seed, device, out or "guidance.png", quiet, as_json,
              request)  # fmt: skip
        return
    options = ReportRequest(
        n=n, labels=labels, seed=seed, features=features, extractor=extractor,
        projection=projection, trust_data=trust_data, device=device, request=request,
    )  # fmt: skip
    result = write_report(models, Path(out or "report.html"), options, quiet=quiet)
    if as_json:
        echo_json(result)
    else:
        size = result["bytes"] / 1e6
        echo(f"wrote {clean(result['output'])}, {size:.1f} MB: {', '.join(result['models'])}")


def _grid(
    model: str,
    scales: Sequence[float],
    n: int | None,
    labels: tuple[str, ...],
    seed: int,
    device: str,
    out: str,
    quiet: bool,
    as_json: bool,
    request: dict[str, Any],
) -> None:
    from cascadezoo.cli.image_files import replacing
    from cascadezoo.cli.model import load_model
    from cascadezoo.errors import InputError
    from cascadezoo.report.guidance_grid import guidance_grid, sample_guidance
    from cascadezoo.spec.labels import label_from_text
    from cascadezoo.train.progress import make_progress

    if Path(out).suffix.lower() != ".png":
        raise InputError(
            f"--guidance needs a .png file, not {out}",
            hint="-o guidance.png",
            code="input-grid-suffix",
            path=out,
        )
    with replacing(Path(out)) as file:
        scales = tuple(dict.fromkeys(scales))
        cascade = load_model(model, device)
        classes = cascade.resolved.num_classes
        classes_by_name = cascade.class_names
        n = n or min(16, len(labels) or classes or 8)
        turns = tuple(label_from_text(label, classes, classes_by_name) for label in labels)
        turns = turns or tuple(range(classes or 0))
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
        names = _names(drawn, classes_by_name)
        guidance_grid(rows, names).save(file, format="PNG")
    if as_json:
        data = {"model": cascade.spec.name, "output": out, "guidance": list(scales)}
        echo_json({**data, "n": n, "seed": seed, "labels": drawn})
    else:
        listed = ", ".join(f"{scale:g}" for scale in rows)
        echo(f"wrote {n} images at guidance {listed} to {clean(out)}")


def _names(labels: list[int] | None, classes: tuple[str, ...] | None) -> list[str] | None:
    """The headings of the columns; None without labels."""
    if labels is None:
        return None
    return [classes[label] if classes else f"label {label}" for label in labels]
