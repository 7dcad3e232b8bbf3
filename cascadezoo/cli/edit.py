"""``cascadezoo edit``, which ``cascadezoo inpaint`` shares."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from cascadezoo.cli.options import Whole, examples, model_argument
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

__all__ = ["command", "count_option", "run", "strength_option"]

F = TypeVar("F", bound=Callable[..., Any])

count_option = click.option(
    "-n",
    "--count",
    "n",
    type=Whole(1, 100_000),
    default=1,
    show_default=True,
    metavar="N",
    help="Number of variants of each image.",
)


def strength_option(default: float) -> Callable[[F], F]:
    """``--strength``."""
    return click.option(
        "--strength",
        type=float,
        default=default,
        show_default=True,
        metavar="S",
        help="How much changes: 0 returns the image, 1 draws a new one.",
    )


@click.command(
    "edit",
    epilog=examples(
        "cascadezoo edit shapes-tiny picture.png -o edited.png --strength 0.4",
        "cascadezoo edit shapes-tiny picture.png -o variants/ -n 8 --label 3",
    ),
)
@model_argument()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@strength_option(0.5)
@count_option
@label_option
@image_options
@file_options
def command(model: str, images: tuple[str, ...], **options: Any) -> None:
    """Change pictures with a diffusion or flow model.

    Image-to-image: --strength sets how much changes.

    A picture of another size is cropped to its centre square and resized to the model's size.
    """
    run("edit", model, images, **options)


def run(
    what: str,
    model: str,
    images: tuple[str, ...],
    *,
    n: int,
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
    mask: str | None = None,
    **options: Any,
) -> None:
    """Run ``edit`` or ``inpaint``."""
    from cascadezoo.cli.model import load_model
    from cascadezoo.hub.locate import locate
    from cascadezoo.hub.refs import reference_of
    from cascadezoo.model_folder.layout import read_config
    from cascadezoo.model_folder.recipe import recipe_of

    stems = [Path(image).stem for image in images]
    names = [f"{stem}-{i}" if n > 1 else stem for stem in stems for i in range(n)]
    inputs = [*images, *([] if mask is None else [mask])]
    paths = output_paths(out, inputs, names, force)
    folder = locate(model, revision, offline or None)
    config = read_config(folder)
    cascade = load_model(folder, device, precision=precision)
    number = label_of(label, cascade)
    request = settings_of(labels=number, **options)
    reference = reference_of(model, folder)
    stated = settings_of(label=number, n=n, precision=precision, **options)
    rows = []
    total = len(images) * n
    task = f"{'editing' if mask is None else 'inpainting'} {total} picture{'s' * (total != 1)}"
    with show_progress(task, total, quiet=quiet or as_json) as advance:
        for place, image in enumerate(images):

            def drawn(done: int, before: int = place * n) -> None:
                advance(before + done)

            if mask is None:
                results = cascade.edit(image, seed=seed, n=n, progress=drawn, **request)
            else:
                results = cascade.inpaint(image, mask, seed=seed, n=n, progress=drawn, **request)
            for index, result in enumerate(results):
                path = paths[place * n + index]
                settings = {**stated, "index": index}
                recipe = recipe_of(config, what, seed, settings, reference=reference)
                save_picture(result, path, recipe)
                row = {"input": image, "output": str(path)}
                rows.append({**row, "width": result.width, "height": result.height})
    data = {
        "model": str(config.spec.get("name")),
        "folder": str(folder),
        "seed": seed,
        "strength": options["strength"],
    }
    print_results(rows, data, as_json, "edited" if what == "edit" else "inpainted")
