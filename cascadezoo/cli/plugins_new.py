"""``cascadezoo plugins new``."""

from __future__ import annotations

from pathlib import Path

import click

from cascadezoo.cli.options import examples, json_option
from cascadezoo.cli.output import echo, echo_json

# Those of cascadezoo.testing.template.KINDS, which --help shows without importing it.
KINDS = ("generator", "upsampler", "refiner", "decoder", "dataset", "metric")


@click.command(
    "new",
    epilog=examples(
        "cascadezoo plugins new wave",
        "cascadezoo plugins new wave --kind upsampler -o ~/src/wave",
    ),
)
@click.argument("name")
@click.option(
    "--kind",
    type=click.Choice(KINDS),
    default="generator",
    show_default=True,
    help="What the plugin provides.",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The folder to write.  [default: cascadezoo-NAME]",
)
@json_option
def new(name: str, kind: str, out: Path | None, as_json: bool) -> None:
    """Write a working project of a new plugin, for you to change.

    NAME is the name of the distribution, with or without the prefix cascadezoo-.
    """
    import shlex

    from cascadezoo.testing.template import project_name, write_project

    distribution = project_name(name)
    folder = write_project(name, kind, out)
    files = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    if as_json:
        rows = {"distribution": distribution, "kind": kind, "folder": str(folder), "files": files}
        echo_json(rows)
        return
    echo(f"{folder} is a plugin with a {kind}:")
    echo("\n".join(f"  {file}" for file in files))
    echo(
        f"\nInstall it and try it:\n"
        f"  pip install -e {shlex.quote(str(folder))}\n"
        f"  cascadezoo plugins check {distribution}"
    )
