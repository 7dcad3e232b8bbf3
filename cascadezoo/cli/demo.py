"""``cascadezoo demo``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from cascadezoo.cli.options import (
    Whole,
    device_option,
    examples,
    hub_options,
    json_option,
    model_argument,
)
from cascadezoo.cli.output import clean, echo, echo_json


@click.command(
    "demo",
    epilog=examples(
        "cascadezoo demo",
        "cascadezoo demo cifar10 cifar10-fast",
        "cascadezoo demo runs/mine --port 8000 --open",
        "cascadezoo demo org/name --export space/",
    ),
)
@model_argument("models", nargs=-1, metavar="[MODEL]...")
@click.option(
    "--host",
    metavar="H",
    help="The address to listen on; 0.0.0.0 for all.  [default: 127.0.0.1, only this machine]",
)
@click.option(
    "--port", type=Whole(1, 65535), metavar="N", help="The port.  [default: from 7860 on]"
)
@click.option("--open", "browse", is_flag=True, help="Open the page in a browser.")
@click.option(
    "--export",
    metavar="DIR",
    help="Write the page as a Space of the Hugging Face Hub instead: app.py, requirements.txt, "
    "README.md.",
)
@click.option("--force", is_flag=True, help="Replace the files of an earlier export.")
@device_option()
@hub_options
@json_option
def command(
    models: tuple[str, ...],
    host: str | None,
    port: int | None,
    browse: bool,
    export: str | None,
    force: bool,
    device: str,
    revision: str | None,
    offline: bool,
    as_json: bool,
) -> None:
    """Open a page to play with models in a browser.

    The page draws pictures by class, seed, steps, guidance and sampler, stage by stage and from
    noise to image, with several models side by side; it enlarges and inpaints pictures, and shows
    the figures of the cards. Without MODEL it offers the installed zoo models. Ctrl-C ends it.

    Needs pip install 'cascadezoo[demo]', except for --export.
    """
    from cascadezoo.demo.serve import (
        LOCAL,
        check_count,
        default_models,
        load_models,
        require_gradio,
        start_demo,
    )

    if force and export is None:
        raise click.UsageError("--force needs --export")
    if export is not None and (host is not None or port is not None or browse):
        raise click.UsageError("--export serves no page: leave out --host, --port and --open")
    references = list(models) or default_models()
    check_count(references)
    if export is not None:
        _export(references, Path(export), revision, offline, force, as_json)
        return
    require_gradio()
    loaded = load_models(references, device=device, revision=revision, offline=offline or None)
    served = start_demo(
        loaded,
        chosen=len(references) if models else 1,
        host=host or LOCAL,
        port=port,
        browse=browse,
    )
    names = [model.name for model in loaded]
    if as_json:
        echo_json({"url": served.url, "models": names})
    else:
        echo(f"{served.url} shows {clean(', '.join(names))}")
        echo("Ctrl-C ends it.", err=True)
    served.wait()
    # Threads that still draw for an open page would abort the end of the interpreter.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _export(
    references: list[str],
    folder: Path,
    revision: str | None,
    offline: bool,
    force: bool,
    as_json: bool,
) -> None:
    from cascadezoo.demo.space import export_space

    rows = export_space(references, folder, revision=revision, offline=offline or None, force=force)
    if as_json:
        listed = [
            {"name": row.name, "reference": row.reference, "digest": row.digest} for row in rows
        ]
        echo_json({"folder": str(folder), "models": listed})
        return
    echo(f"wrote a Space to {clean(folder)}: {', '.join(clean(row.name) for row in rows)}")
    echo(f"Next: hf upload org/name {clean(folder)} --repo-type space", err=True)
