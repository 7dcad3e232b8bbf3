"""``cascadezoo publish``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cascadezoo.cli.options import examples, json_option, model_argument
from cascadezoo.cli.output import clean, echo, echo_json
from cascadezoo.util.numbers import human_bytes

if TYPE_CHECKING:
    from cascadezoo.hub.folder_copy import Copied
    from cascadezoo.hub.publish.result import Published


@click.command(
    "publish",
    epilog=examples(
        "cascadezoo publish runs/shapes-demo org/shapes-demo",
        "cascadezoo publish runs/shapes-demo org/shapes-demo --private --tag v1",
        "cascadezoo publish runs/shapes-demo org/shapes-demo --create-pr --message 'More epochs'",
        "cascadezoo publish runs/shapes-demo ./shared/shapes-demo --dry-run",
    ),
)
@model_argument()
@click.argument("dest")
@click.option("--private", is_flag=True, help="Create a private repo.")
@click.option(
    "--revision", metavar="BRANCH", help="The branch; created if it is missing.  [default: main]"
)
@click.option(
    "--create-pr", is_flag=True, help="Open a pull request and leave the branch unchanged."
)
@click.option("--tag", metavar="TAG", help="Tag the commit, for example v1.")
@click.option("--message", metavar="TEXT", help="First line of the commit message.")
@click.option("--dry-run", is_flag=True, help="Check everything and change nothing.")
@json_option
def command(
    model: str,
    dest: str,
    private: bool,
    revision: str | None,
    create_pr: bool,
    tag: str | None,
    message: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Publish a model to the Hub or to a folder.

    MODEL is a run folder of a finished build or a model folder. DEST is org/name on the Hugging
    Face Hub, or a folder: ./x, /x, or an existing one. All files are checked first. On the Hub the
    repo is created if it is missing, and the model becomes one commit; log in with `hf auth login`
    first. A folder must be new, empty, or contain an older version of the same model, which is
    replaced as a whole.
    """
    from cascadezoo.hub.publish.publish_model import publish
    from cascadezoo.hub.publish.result import Published

    done = publish(
        model,
        dest,
        private=private,
        revision=revision,
        create_pr=create_pr,
        tag=tag,
        message=message,
        dry_run=dry_run,
    )
    if as_json:
        echo_json(done.to_dict())
    elif isinstance(done, Published):
        _show_hub(done)
    else:
        _show_folder(done)


def _show_hub(done: Published) -> None:
    name, where = clean(done.name), clean(done.repo)
    if done.dry_run and not done.changed:
        echo(f"{where} already contains {name} with identical files; nothing would be uploaded")
    elif done.dry_run:
        echo(f"would publish {name} as one commit to {where}")
        for file, size in done.files.items():
            echo(f"  {file}  {human_bytes(size)}")
        for file in done.deleted:
            echo(f"  {clean(file)}  would be deleted")
        echo(f"{human_bytes(done.uploaded_bytes)} are new or changed")
    elif not done.changed:
        echo(f"{where} already contains {name} with identical files")
    else:
        echo(f"published {name}: {len(done.files)} files, {human_bytes(done.uploaded_bytes)} new")
        for file in done.deleted:
            echo(f"  {clean(file)}  deleted")
    if done.card_kept:
        echo("the card was edited on the Hub; the edits are kept", err=True)
    if not done.dry_run:
        echo(f"url: {clean(done)}")
        echo(f"commit: {clean(done.commit)}" + (f", tag {clean(done.tag)}" if done.tag else ""))


def _show_folder(done: Copied) -> None:
    what = f"{clean(done.name)}: {len(done.files)} files, {human_bytes(done.size)}"
    if done.dry_run:
        echo(f"would publish {what}, to {clean(done.dest)}" + (_REPLACES * done.replaced))
        for name, size in done.files.items():
            echo(f"  {name}  {human_bytes(size)}")
    elif not done.changed:
        echo(f"{clean(done.dest)} already contains {clean(done.name)} with identical files")
    else:
        echo(f"published {what}, to {clean(done.dest)}" + (_REPLACED * done.replaced))


_REPLACES = "; an older version there would be replaced"
_REPLACED = "; an older version there was replaced"
