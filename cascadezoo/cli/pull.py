"""``cascadezoo pull``."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import click

from cascadezoo.cli.options import examples, hub_options, json_option, model_argument
from cascadezoo.cli.output import clean, echo, echo_json
from cascadezoo.util.numbers import human_bytes


@click.command(
    "pull",
    epilog=examples(
        "cascadezoo pull org/digits",
        "cascadezoo pull org/digits@v1 --to models/digits",
        "cascadezoo pull /srv/models/shapes-demo --to models/shapes-demo",
    ),
)
@model_argument("reference", metavar="REF")
@click.option("--to", "dest", metavar="DIR", help="Also copy it into this folder.")
@hub_options
@json_option
def command(
    reference: str, dest: str | None, revision: str | None, offline: bool, as_json: bool
) -> None:
    """Fetch a model and check all its files.

    REF is a repo on the Hub (org/name, org/name@revision), the name of a zoo model, or a folder
    that a model was published to. Models from the Hub are stored in its cache, where all commands
    find them. DIR is a new or empty folder, or contains an older version of the same model.
    """
    from cascadezoo.hub.pull import pull
    from cascadezoo.hub.refs import as_argument

    with _terminated_as_interrupted():
        done = pull(reference, dest, revision=revision, offline=offline or None)
    if as_json:
        echo_json(done.to_dict())
        return
    origin = "" if done.repo is None else f" from {done.repo}, commit {done.commit}"
    if done.changed is False:
        echo(f"{clean(done.folder)} already contains {clean(done.name)} with identical files")
    else:
        what = f"{len(done.files)} files, {human_bytes(done.size)}"
        echo(f"pulled {clean(done.name)}{origin}: {what}, to {clean(done.folder)}")
    if dest is not None:
        model = as_argument(done.folder)
    else:
        model = reference if revision is None else f"{done.repo}@{revision}"
    echo(f"Next: cascadezoo sample {shlex.quote(model)}", err=True)


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Handle SIGTERM like Ctrl-C, so that both remove incomplete files."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # only the main thread receives signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
