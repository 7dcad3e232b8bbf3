"""``cascadezoo inpaint``."""

from __future__ import annotations

from typing import Any

import click

from cascadezoo.cli.edit import count_option, run, strength_option
from cascadezoo.cli.options import Whole, examples, model_argument
from cascadezoo.cli.picture_files import file_options, image_options, label_option

__all__ = ["command"]


@click.command(
    "inpaint",
    epilog=examples(
        "cascadezoo inpaint shapes-tiny picture.png --mask mask.png -o new.png",
        "cascadezoo inpaint shapes-tiny picture.png --mask mask.png -o new/ -n 8 --label 3",
    ),
)
@model_argument()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "--mask",
    required=True,
    metavar="PATH",
    help="A picture of the size of the image: white is redrawn, black is kept.",
)
@strength_option(1.0)
@click.option(
    "--resamplings",
    type=Whole(1, 1000),
    default=4,
    show_default=True,
    metavar="N",
    help="How often each step is repeated; more fit better and take longer.",
)
@count_option
@label_option
@image_options
@file_options
def command(model: str, images: tuple[str, ...], **options: Any) -> None:
    """Redraw a part of pictures.

    All other pixels stay exactly the same.

    A picture of another size, and its mask, are cropped to their centre square and resized to the
    model's size.
    """
    run("inpaint", model, images, **options)
