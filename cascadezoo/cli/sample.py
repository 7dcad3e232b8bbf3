"""``cascadezoo sample``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cascadezoo.cli.options import (
    Whole,
    device_option,
    examples,
    json_option,
    per_stage_option,
    seed_option,
)
from cascadezoo.cli.output import clean, echo, echo_json, human_seconds

if TYPE_CHECKING:
    from cascadezoo.cascade import Cascade
    from cascadezoo.cli.image_files import ImageFile


@click.command(
    "sample",
    epilog=examples(
        "cascadezoo sample runs/shapes-demo",
        "cascadezoo sample runs/shapes-demo -n 64 --label 3 --guidance 3 -o threes.png",
        "cascadezoo sample runs/shapes-demo --stages -n 6 -o stages.png",
        "cascadezoo sample runs/shapes-demo -n 10000 --steps coarse=10 -o samples.npz",
    ),
)
@click.argument("model")
@click.option(
    "-n",
    "--count",
    "n",
    type=Whole(1, 10_000_000),
    default=16,
    show_default=True,
    metavar="N",
    help="How many images.",
)
@seed_option("The same seed gives the same images.", default=0)
@click.option(
    "--label",
    "labels",
    multiple=True,
    type=Whole(0),
    metavar="L",
    help="The label to draw; several are taken in turn. Default: all, in turn.",
)
@per_stage_option("--steps", int, "a whole number", "Steps of iterative stages.")
@per_stage_option("--guidance", float, "a number", "Scale of classifier-free guidance.")
@per_stage_option("--sampler", str, "a name", "Sampler of diffusion stages.")
@click.option(
    "--batch-size",
    type=Whole(1, 1_000_000),
    default=64,
    show_default=True,
    metavar="N",
    help="Images at a time; changes no image.",
)
@click.option("--stages", is_flag=True, help="Draw what each stage makes, side by side.")
@device_option()
@click.option(
    "-o",
    "--out",
    metavar="PATH",
    help="A .png (grid), an .npz, or a folder/ of PNG files.  [default: NAME-seedN.png]",
)
@click.option("--force", is_flag=True, help="Replace files in a folder.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@json_option
def command(
    model: str,
    n: int,
    seed: int,
    labels: tuple[int, ...],
    batch_size: int,
    stages: bool,
    device: str,
    out: str | None,
    force: bool,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Draw images from a model.

    MODEL is a run folder of a finished build, or a model folder. An .npz holds arr_0, uint8 of
    shape [N, H, W, C], and arr_1, the labels.
    """
    from cascadezoo.cli.image_files import format_of, open_images
    from cascadezoo.hub.layout import CONFIG, read_config
    from cascadezoo.hub.refs import locate
    from cascadezoo.spec import resolve

    folder = locate(model)
    spec = read_config(folder).spec
    resolved = resolve(spec, source=str(folder / CONFIG), for_training=False)
    image, classes = resolved.image, resolved.num_classes
    path = out or f"{resolved.spec.name}-seed{seed}{'-stages' if stages else ''}.png"
    what = format_of(path, stages)
    with open_images(
        Path(path), what, n=n, image=image, labelled=classes is not None, force=force
    ) as images:
        cascade = _load(folder, device)
        turns = labels or tuple(range(classes or 0))
        seconds = _draw(
            cascade, images, n, batch_size, turns, stages, quiet, options | {"seed": seed}
        )
    rate = n / max(seconds, 1e-9)
    if as_json:
        data = {
            "model": resolved.spec.name,
            "folder": str(folder),
            "output": path,
            "format": what,
            "n": n,
            "seed": seed,
            "size": image.size,
            "channels": image.channels,
            "seconds": round(seconds, 3),
            "images_per_second": round(rate, 2),
        }
        echo_json(data)
    else:
        images_of = f"{n} image{'s' * (n != 1)} of {image}"
        speed = f"{human_seconds(seconds)}, {rate:.0f} images/s"
        echo(f"wrote {images_of} to {clean(path)} ({speed})")


def _load(folder: Path, device: str) -> Cascade:
    from cascadezoo.cascade import Cascade
    from cascadezoo.train.engine import pick_device

    return Cascade.from_pretrained(folder, device=pick_device(device))


def _draw(
    cascade: Cascade,
    images: ImageFile,
    n: int,
    batch_size: int,
    turns: tuple[int, ...],
    stages: bool,
    quiet: bool,
    options: Mapping[str, Any],
) -> float:
    """Sample batch after batch, labels in turn; returns the seconds that sampling took."""
    from cascadezoo.evaluate.pixels import to_uint8
    from cascadezoo.train.progress import make_progress

    shown = [s.name for s in cascade.resolved.stages if stages and not s.output.latent]
    shown = shown or cascade.names[-1:]
    progress = make_progress(quiet)
    seconds = 0.0
    try:
        progress.task(f"sampling {n} images", n)
        for first in range(0, n, batch_size):
            count = min(batch_size, n - first)
            labels = [turns[i % len(turns)] for i in range(first, first + count)] if turns else None
            began = time.monotonic()
            made = cascade.sample(
                count,
                first=first,
                batch_size=count,
                labels=labels,
                return_stages=True,
                **options,
            )
            rows = {name: to_uint8(made[name]).cpu() for name in shown}
            seconds += time.monotonic() - began
            images.add(rows, labels)
            progress.advance(first + count)
    finally:
        progress.close()
    return seconds
