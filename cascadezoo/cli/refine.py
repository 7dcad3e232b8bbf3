"""``cascadezoo refine``."""

from __future__ import annotations

from typing import Any

import click

from cascadezoo.cli.options import examples
from cascadezoo.cli.picture_files import file_options, image_options, label_option
from cascadezoo.cli.upscale import images_argument, model_option, run, tile_option

__all__ = ["command"]


@click.command(
    "refine",
    epilog=examples("cascadezoo refine photo.jpg -o sharp.png --model shapes-tiny"),
)
@images_argument
@model_option
@click.option(
    "--stage",
    metavar="NAME",
    help="The refiner to begin with; the refiners after it run too.  [default: the first]",
)
@tile_option
@label_option
@image_options
@file_options
def command(images: tuple[str, ...], **options: Any) -> None:
    """Sharpen pictures by the refiners of a model.

    Their size stays. Files are read and written as by cascadezoo upscale.
    """
    run("refine", images, **options)
