"""Files of the commands on pictures: where results go, and what the PNG files state."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cascadezoo.cli.completion import complete_labels
from cascadezoo.cli.image_files import replacing
from cascadezoo.cli.options import (
    device_option,
    hub_options,
    json_option,
    per_stage_option,
    precision_option,
    seed_option,
)
from cascadezoo.cli.output import clean, echo, echo_json
from cascadezoo.errors import InputError, ModelReferenceError

if TYPE_CHECKING:
    from PIL import Image

    from cascadezoo.cascade.cascade import Cascade
    from cascadezoo.model_folder.recipe import Recipe

__all__ = [
    "file_options",
    "image_options",
    "label_of",
    "label_option",
    "model_of_recipe",
    "output_paths",
    "print_results",
    "save_picture",
    "settings_of",
    "show_progress",
]

F = TypeVar("F", bound=Callable[..., Any])


def file_options(function: F) -> F:
    """``-o``, ``--force``, ``--precision``, ``--device``, the Hub's options, ``-q``, ``--json``."""
    options: list[Callable[[Any], Any]] = [
        json_option,
        click.option("-q", "--quiet", is_flag=True, help="Show no progress; --json shows none."),
        hub_options,
        device_option(),
        precision_option,
        click.option("--force", is_flag=True, help="Replace existing files."),
        click.option(
            "-o",
            "--out",
            metavar="PATH",
            required=True,
            help="A .png file for one result, or a folder/ for several.",
        ),
    ]
    for option in options:
        function = option(function)
    return function


def image_options(function: F) -> F:
    """``--seed``, ``--steps``, ``--guidance`` and ``--sampler``."""
    options: list[Callable[[Any], Any]] = [
        per_stage_option(
            "--sampler", str, "a name", "Sampler of diffusion and flow stages: ddim, heun, ..."
        ),
        per_stage_option(
            "--guidance", float, "a number", "Scale of classifier-free guidance; needs a label."
        ),
        per_stage_option("--steps", int, "a whole number", "Steps of iterative stages."),
        seed_option("The same seed gives the same images.", default=0),
    ]
    for option in options:
        function = option(function)
    return function


label_option = click.option(
    "--label",
    "label",
    metavar="L",
    shell_complete=complete_labels,
    help="The class of the image, by name or number.  [default: none]",
)


def label_of(text: str | None, cascade: Cascade) -> int | None:
    """The number of a label of the command line; None if none was given."""
    from cascadezoo.spec.labels import label_from_text

    if text is None:
        return None
    return label_from_text(text, cascade.resolved.num_classes, cascade.class_names)


def settings_of(**values: Any) -> dict[str, Any]:
    """Settings without those that were not given."""
    return {key: value for key, value in values.items() if value is not None}


@contextmanager
def show_progress(what: str, total: int, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Show a task on standard error; yields what reports the number of finished images."""
    from cascadezoo.train.progress import make_progress

    progress = make_progress(quiet)
    try:
        progress.task(what, total)
        yield progress.advance
    finally:
        progress.close()


def output_paths(out: str, inputs: Sequence[str], names: Sequence[str], force: bool) -> list[Path]:
    """The paths of results; nothing is written yet.

    Args:
        out: a .png file, or a folder, which is created.
        inputs: the paths of the input pictures, which are never replaced without ``force``.
        names: the name of each result in a folder, without suffix.
        force: replace existing files.

    Raises:
        InputError: several results for one file, two results of one name, an unknown suffix, or a
            file exists.
    """
    path = Path(out)
    folder = out.endswith(("/", "\\")) or path.is_dir() or not path.suffix
    if folder:
        twice = sorted(name for name, count in Counter(names).items() if count > 1)
        if twice:
            raise InputError(
                f"two results would be written to {path / twice[0]}.png",
                hint="run the command once for each of these pictures, with another folder",
                code="input-output-twice",
                path=path / f"{twice[0]}.png",
            )
        paths = [path / f"{name}.png" for name in names]
    elif path.suffix.lower() != ".png":
        raise InputError(
            f"results cannot be written as {path.suffix} ({out})",
            hint="use a .png file or a folder/",
            code="input-result-suffix",
            path=out,
        )
    elif len(names) > 1:
        raise InputError(
            f"{len(names)} results do not fit into one file ({out})",
            hint="use a folder: -o results/",
            code="input-result-count",
            path=out,
            n=len(names),
        )
    else:
        paths = [path]
    originals = {Path(name).resolve() for name in inputs}
    for result in paths if not force else ():
        if result.resolve() in originals or result.exists():
            what = "is an input" if result.resolve() in originals else "already exists"
            raise InputError(
                f"{result} {what}",
                hint="choose another path with -o, or replace it with --force",
                code="input-result-exists",
                path=result,
            )
    return paths


def save_picture(image: Image.Image, path: Path, recipe: Recipe) -> None:
    """Write a PNG file that states how it was made; it appears complete or not at all."""
    with replacing(path) as file:
        image.save(file, format="PNG", pnginfo=recipe.png_info())


def model_of_recipe(recipe: Recipe, picture: str, *, offline: bool, confirmed: bool) -> Path:
    """The folder of the model that a picture names: bundled, cached, or fetched if confirmed.

    Raises:
        ModelReferenceError: the picture names no model, or one that must be fetched and the user
            did not confirm it.
    """
    from cascadezoo.hub.locate import locate

    reference = recipe.reference
    if reference is None:
        raise ModelReferenceError(
            f"{picture} was made by a local model, {clean(recipe.model)!r}, which it cannot locate",
            hint=f"cascadezoo sample MODEL --like {picture}",
            code="reference-not-in-picture",
            name=clean(recipe.model),
        )
    try:
        return locate(reference, offline=True)
    except ModelReferenceError as error:
        if error.code != "reference-offline" or offline:
            raise
    ask = f"{picture} names the model {reference}. Fetch it?"
    if not confirmed and not (sys.stdin.isatty() and click.confirm(ask)):
        raise ModelReferenceError(
            f"{picture} names the model {reference}, which is not on this machine",
            hint="fetch it with --yes if you trust it",
            code="reference-unconfirmed",
            name=reference,
        )
    return locate(reference)


def print_results(
    rows: Sequence[dict[str, Any]], data: dict[str, Any], as_json: bool, what: str
) -> None:
    """Print where results are: one line each, or all as JSON."""
    if as_json:
        echo_json({**data, "results": list(rows)})
        return
    for row in rows:
        size = f"{row['width']}x{row['height']}"
        source = f"{clean(row['input'])} " if row.get("input") else ""
        echo(f"{what} {source}to {clean(row['output'])} ({size})")
