"""``cascadezoo publish``."""

from __future__ import annotations

import click

from cascadezoo.cli.options import examples, json_option
from cascadezoo.cli.output import clean, echo, echo_json, human_bytes


@click.command(
    "publish",
    epilog=examples(
        "cascadezoo publish runs/shapes-demo /srv/models/shapes-demo",
        "cascadezoo publish runs/shapes-demo ./shared/shapes-demo --dry-run",
    ),
)
@click.argument("model")
@click.argument("dest")
@click.option("--dry-run", is_flag=True, help="Check everything and write nothing.")
@json_option
def command(model: str, dest: str, dry_run: bool, as_json: bool) -> None:
    """Copy a model, checked and whole, to where others are.

    MODEL is a run folder of a finished build or a model folder. DEST is a folder: a new one, an
    empty one, or one that holds an older version of the same model, which is replaced at once.
    """
    from cascadezoo.hub.local import publish_local

    done = publish_local(model, dest, dry_run=dry_run)
    if as_json:
        echo_json(done.to_dict())
        return
    what = f"{clean(done.name)}: {len(done.files)} files, {human_bytes(done.size)}"
    if dry_run:
        echo(f"would publish {what}, to {clean(done.dest)}" + (_REPLACES * done.replaced))
        for name, size in done.files.items():
            echo(f"  {name}  {human_bytes(size)}")
    elif not done.changed:
        echo(f"{clean(done.dest)} holds {clean(done.name)} already, file by file the same")
    else:
        echo(f"published {what}, to {clean(done.dest)}" + (_REPLACED * done.replaced))


_REPLACES = "; an older version there would be replaced"
_REPLACED = "; an older version there was replaced"
