"""``cascadezoo pull``."""

from __future__ import annotations

import shlex

import click

from cascadezoo.cli.options import examples, json_option
from cascadezoo.cli.output import clean, echo, echo_json, human_bytes


@click.command(
    "pull",
    epilog=examples(
        "cascadezoo pull /srv/models/shapes-demo --to models/shapes-demo",
    ),
)
@click.argument("reference", metavar="REF")
@click.option("--to", "dest", required=True, metavar="DIR", help="The folder to put it into.")
@json_option
def command(reference: str, dest: str, as_json: bool) -> None:
    """Fetch a model into a folder and check every file of it.

    REF is a folder that a model was published to. DIR is a new or empty folder, or one that holds
    an older version of the same model.
    """
    from cascadezoo.hub.local import pull_local

    done = pull_local(reference, dest)
    if as_json:
        echo_json(done.to_dict())
        return
    if done.changed:
        what = f"{len(done.files)} files, {human_bytes(done.size)}"
        echo(f"pulled {clean(done.name)}: {what}, to {clean(done.dest)}")
    else:
        echo(f"{clean(done.dest)} holds {clean(done.name)} already, file by file the same")
    echo(f"Next: cascadezoo sample {shlex.quote(str(done.dest))}", err=True)
