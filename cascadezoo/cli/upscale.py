"""``cascadezoo upscale`` and ``cascadezoo refine``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cascadezoo.cli.completion import complete_models
from cascadezoo.cli.options import Whole, examples
from cascadezoo.cli.picture_files import (
    file_options,
    image_options,
    label_of,
    label_option,
    output_paths,
    print_results,
    save_picture,
    settings_of,
    show_progress,
)
from cascadezoo.errors import InputError

__all__ = ["command", "run"]

model_option = click.option(
    "-m",
    "--model",
    metavar="REF",
    shell_complete=complete_models,
    help="A run folder, a model folder, a zoo model or org/name on the Hub.  [default: the zoo's]",
)
tile_option = click.option(
    "--tile",
    type=Whole(1, 65536),
    metavar="N",
    help="Height and width of the tiles of large pictures.  [default: chosen by the stage]",
)
images_argument = click.argument("images", nargs=-1, required=True, metavar="IMAGE...")


@click.command(
    "upscale",
    epilog=examples(
        "cascadezoo upscale photo.jpg -o large.png --model shapes-tiny",
        "cascadezoo upscale photos/*.png -o large/ --model runs/mine --stage up --seed 1",
    ),
)
@images_argument
@model_option
@click.option(
    "--stage",
    metavar="NAME",
    help="The upsampler to begin with; all later stages run too.  [default: the first]",
)
@tile_option
@label_option
@image_options
@file_options
def command(images: tuple[str, ...], **options: Any) -> None:
    """Enlarge pictures by the upsamplers of a model.

    PNG, JPEG, WebP, TIFF, BMP, GIF and PPM are read; results are PNG. Grey pictures stay grey, and
    transparent ones transparent. No file is replaced without --force.
    """
    run("upscale", images, **options)


def run(
    what: str,
    images: tuple[str, ...],
    *,
    model: str | None,
    stage: str | None,
    tile: int | None,
    label: str | None,
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
    """Run ``upscale`` or ``refine``."""
    from cascadezoo.cli.model import load_model
    from cascadezoo.hub.locate import locate
    from cascadezoo.hub.refs import reference_of
    from cascadezoo.model_folder.layout import read_config
    from cascadezoo.model_folder.recipe import recipe_of
    from cascadezoo.zoo.list import default_model

    chosen = model or default_model(what)
    if chosen is None:
        raise InputError(
            f"no model was given, and no installed zoo names one for {what}",
            hint=f"cascadezoo {what} IMAGE... -o OUT --model REF; cascadezoo zoo list shows models",
            code="input-no-model",
        )
    paths = output_paths(out, images, [Path(image).stem for image in images], force)
    folder = locate(chosen, revision, offline or None)
    config = read_config(folder)
    cascade = load_model(folder, device, precision=precision)
    method = cascade.upscale if what == "upscale" else cascade.refine
    number = label_of(label, cascade)
    request = settings_of(stage=stage, tile=tile, labels=number, **sampling)
    settings = settings_of(stage=stage, tile=tile, label=number, precision=precision, **sampling)
    recipe = recipe_of(config, what, seed, settings, reference=reference_of(chosen, folder))
    rows = []
    doing = "upscaling" if what == "upscale" else "refining"
    task = f"{doing} {len(images)} picture{'s' * (len(images) != 1)}"
    with show_progress(task, len(images), quiet=quiet or as_json) as advance:
        for image, path in zip(images, paths, strict=True):
            (result,) = method(image, seed=seed, **request)
            save_picture(result, path, recipe)
            row = {"input": image, "output": str(path)}
            rows.append({**row, "width": result.width, "height": result.height})
            advance(len(rows))
    data = {"model": recipe.model, "folder": str(folder), "seed": seed, "digest": recipe.digest}
    print_results(rows, data, as_json, "upscaled" if what == "upscale" else "refined")
