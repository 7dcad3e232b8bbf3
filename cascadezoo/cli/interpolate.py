"""``cascadezoo interpolate``."""

from __future__ import annotations

from typing import Any

import click

from cascadezoo.cli.completion import complete_labels
from cascadezoo.cli.image_files import require_grid
from cascadezoo.cli.options import Whole, examples, model_argument
from cascadezoo.cli.picture_files import (
    file_options,
    image_options,
    label_of,
    output_paths,
    print_results,
    save_picture,
    settings_of,
    show_progress,
)

__all__ = ["command"]


@click.command(
    "interpolate",
    epilog=examples(
        "cascadezoo interpolate shapes-tiny --to-seed 1 -o between.png",
        "cascadezoo interpolate shapes-tiny --label 2 --to-label 5 -n 16 -o frames/",
    ),
)
@model_argument()
@click.option(
    "--to-seed", type=Whole(0), metavar="N", help="The seed at the end.  [default: --seed]"
)
@click.option(
    "--label",
    metavar="L",
    shell_complete=complete_labels,
    help="The class, by name or number.  [default: 0, if any]",
)
@click.option(
    "--to-label",
    metavar="L",
    shell_complete=complete_labels,
    help="The class at the end.  [default: --label]",
)
@click.option(
    "-n",
    "--count",
    "n",
    type=Whole(2, 100_000),
    default=9,
    show_default=True,
    metavar="N",
    help="Number of images including both ends.",
)
@image_options
@file_options
def command(
    model: str,
    to_seed: int | None,
    label: str | None,
    to_label: str | None,
    n: int,
    seed: int,
    out: str,
    force: bool,
    precision: str | None,
    device: str,
    revision: str | None,
    offline: bool,
    quiet: bool,
    as_json: bool,
    **sampling: Any,
) -> None:
    """Sample between two seeds, two labels, or both.

    A .png file shows all of them in a row; a folder receives one file for each.
    """
    from cascadezoo.cli.model import load_model
    from cascadezoo.hub.locate import locate
    from cascadezoo.hub.refs import reference_of
    from cascadezoo.model_folder.layout import read_config
    from cascadezoo.model_folder.recipe import recipe_of

    if to_seed is None and to_label is None:
        raise click.UsageError("give the other end: --to-seed N, --to-label L, or both")
    if to_label is not None and label is None:
        raise click.UsageError("--to-label needs --label")
    one_file = out.lower().endswith(".png")
    names = ["frames"] if one_file else [f"{i:06}" for i in range(n)]
    paths = output_paths(out, (), names, force)
    folder = locate(model, revision, offline or None)
    config = read_config(folder)
    cascade = load_model(folder, device, precision=precision)
    if one_file:
        require_grid(n, cascade.resolved.image.size, "write single files: -o frames/")
    ends = (seed, seed if to_seed is None else to_seed)
    start, end = label_of(label, cascade), label_of(to_label, cascade)
    labels = None if start is None else (start, start if end is None else end)
    request = settings_of(labels=labels, **sampling)
    with show_progress(f"sampling {n} images", n, quiet=quiet or as_json) as advance:
        images = cascade.interpolate(ends, n=n, output_type="pt", progress=advance, **request)

    from cascadezoo.data.pictures import to_pil
    from cascadezoo.report.images import grid

    reference = reference_of(model, folder)
    settings = settings_of(
        to_seed=ends[1], label=start, to_label=end, n=n, precision=precision, **sampling
    )
    pictures = [grid(images, columns=n)] if one_file else to_pil(images)
    rows = []
    for index, (picture, path) in enumerate(zip(pictures, paths, strict=True)):
        stated = settings if one_file else {**settings, "index": index}
        recipe = recipe_of(config, "interpolate", seed, stated, reference=reference)
        save_picture(picture, path, recipe)
        rows.append({"output": str(path), "width": picture.width, "height": picture.height})
    data = {
        "model": str(config.spec.get("name")),
        "folder": str(folder),
        "seeds": list(ends),
        "labels": None if labels is None else list(labels),
        "n": n,
    }
    print_results(rows, data, as_json, f"wrote {n} images")
