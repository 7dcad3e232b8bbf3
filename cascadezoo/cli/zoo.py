"""``cascadezoo zoo``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cascadezoo.cli.lazy import Commands
from cascadezoo.cli.options import Whole, examples, json_option, model_argument
from cascadezoo.cli.output import clean, echo, echo_json, table
from cascadezoo.util.numbers import human_bytes, human_count, spread

if TYPE_CHECKING:
    from cascadezoo.hub.search import SearchResult
    from cascadezoo.zoo.list import ListedModel, Zoos
    from cascadezoo.zoo.manifest import ZooFigure, ZooModel

MANIFEST = "zoo_manifest.json"


@click.group("zoo", cls=Commands)
def command() -> None:
    """List, show, add, verify and search pretrained models."""


@command.command(
    "list",
    epilog=examples(
        "cascadezoo zoo list",
        "cascadezoo zoo list 'shapes*' --json",
    ),
)
@click.argument("pattern", metavar="[GLOB]", default="*")
@json_option
def list_(pattern: str, as_json: bool) -> None:
    """List the models of the zoo and of plugins' zoos.

    Use a name with sample, pull and Cascade.from_pretrained.
    """
    from cascadezoo.zoo.list import get_zoos

    zoos = get_zoos()
    rows = zoos.matching(pattern)
    if as_json:
        echo_json([_row(row) for row in rows])
    elif rows:
        head = ("MODEL", "DATA", "PARAMETERS", "BYTES", "FIGURE", "FROM", "DESCRIPTION")
        echo(table(head, map(_cells, rows), right=(2, 3)))
    else:
        echo(f"no zoo lists a model that matches {pattern!r}", err=True)
    _show_faults(zoos)


@command.command("show", epilog=examples("cascadezoo zoo show shapes-tiny"))
@model_argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show the zoo entry of a model."""
    from cascadezoo.spec.requires import install_advice, missing
    from cascadezoo.zoo.list import get_zoos

    listed = get_zoos().get(name)
    model = listed.model
    absent = missing(model.requires)
    if as_json:
        echo_json({**_row(listed), "missing": absent})
        return
    echo(f"{model.name}: {clean(model.description)}" if model.description else model.name)
    rows = [
        ("location", _location(model)),
        ("listed by", str(listed)),
        ("images", f"{model.size}x{model.size}"),
        ("parameters", f"{model.parameters:,}"),
        ("data", model.data),
        ("licence", model.license),
        ("requires", ", ".join(model.requires) or "-"),
        ("spec", f"sha256 {model.spec_digest}"),
    ]
    for label, text in rows:
        echo(f"  {label:<11} {clean(text)}")
    if model.metrics:
        figures = [(key, _figure(key, figure)) for key, figure in model.metrics.items()]
        echo("\n" + table(("FIGURE", "VALUE"), figures))
    files = [(key, human_bytes(f.size), f.sha256) for key, f in model.files.items()]
    echo("\n" + table(("FILE", "SIZE", "SHA256"), files, right=(1,)))
    if absent:
        echo(f"\nRequirements are missing: {install_advice(absent, {})}", err=True)
    else:
        echo(f"\nNext: cascadezoo sample {model.name}", err=True)


@command.command(
    "add",
    epilog=examples(
        "cascadezoo zoo add org/name",
        "cascadezoo zoo add org/name@v1 --name shapes-large --manifest zoo/manifest.json",
    ),
)
@click.argument("reference", metavar="REF")
@click.option("--name", metavar="NAME", help="Name in the zoo.  [default: the name of its spec]")
@click.option(
    "--manifest",
    type=click.Path(dir_okay=False, path_type=Path),
    default=MANIFEST,
    show_default=True,
    metavar="FILE",
    help="The manifest to write to; created if it is missing.",
)
@json_option
def add(reference: str, name: str | None, manifest: Path, as_json: bool) -> None:
    """Write the entry of a published model into a manifest.

    REF is org/name or org/name@revision on the Hub. A branch or tag is resolved once, and the
    entry records the commit. An entry with the same name and repo is replaced.
    """
    from cascadezoo.hub.zoo_models import zoo_entry
    from cascadezoo.zoo.entry import add_entry

    model = zoo_entry(reference, name=name)
    previous = add_entry(model, manifest)
    if as_json:
        echo_json({"manifest": str(manifest), "replaced": previous is not None, **_data(model)})
        return
    if previous == model:
        echo(f"{clean(manifest)} already contains {model.name} at the same commit")
    elif previous is None:
        echo(f"added {model.name} to {clean(manifest)}: {_location(model)}")
    else:
        echo(f"moved {model.name} in {clean(manifest)} from {previous.commit} to {model.commit}")
    echo(f"Next: cascadezoo zoo verify --manifest {shlex.quote(str(manifest))}", err=True)


@command.command(
    "verify",
    epilog=examples(
        "cascadezoo zoo verify",
        "cascadezoo zoo verify shapes-tiny --offline",
        "cascadezoo zoo verify --manifest zoo_manifest.json",
    ),
)
@click.argument("name", required=False)
@click.option("--offline", is_flag=True, help="Read the local cache of the Hub, including weights.")
@click.option(
    "--manifest",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Verify the entries of this file instead of the installed zoos.",
)
@json_option
@click.pass_context
def verify(
    ctx: click.Context, name: str | None, offline: bool, manifest: Path | None, as_json: bool
) -> None:
    """Check entries against the published models: hashes and metadata.

    The exit code is 1 if something is wrong or cannot be checked.
    """
    from cascadezoo.errors import CascadezooError
    from cascadezoo.hub.zoo_models import verify as verify_entry
    from cascadezoo.zoo.list import entries_to_verify

    models, notes = entries_to_verify(name, manifest)
    rows: list[dict[str, Any]] = []
    for model in models:
        try:
            faults = verify_entry(model, offline=offline)
        except CascadezooError as error:
            if name is not None:
                raise
            faults = [error.what]
        rows.append({"name": model.name, "ok": not faults, "faults": faults})
        if not as_json:
            echo(f"{'ok' if not faults else 'WRONG':<6} {model.name}: {_location(model)}")
            for fault in faults:
                echo(f"       {clean(fault)}")
    if as_json:
        echo_json({"models": rows, "problems": notes})
    for note in notes:
        echo(clean(note), err=True)
    if notes or not all(row["ok"] for row in rows):
        ctx.exit(1)


@command.command(
    "search",
    epilog=examples(
        "cascadezoo zoo search shapes",
        "cascadezoo zoo search '' --limit 100 --json",
    ),
)
@click.argument("text")
@click.option(
    "--limit",
    type=Whole(1, 1000),
    default=20,
    show_default=True,
    metavar="N",
    help="Number of models to show.",
)
@json_option
def search(text: str, limit: int, as_json: bool) -> None:
    """Search the Hub for models made with cascadezoo, most downloaded first.

    TEXT is searched in the names of repos. Nobody has reviewed the results, unlike the models
    that `zoo list` shows.
    """
    from cascadezoo.hub.search import search as search_hub

    models = search_hub(text, limit=limit)
    if as_json:
        echo_json([model.to_dict() for model in models])
    elif models:
        rows = [
            (m.repo, human_count(m.downloads), m.likes, m.updated, _note(m), _tags(m))
            for m in models
        ]
        head = ("REPO", "DOWNLOADS", "LIKES", "UPDATED", "NOTE", "TAGS")
        echo(table(head, rows, right=(1, 2)))
        echo(f"Next: cascadezoo sample {shlex.quote(models[0].repo)}", err=True)
    else:
        echo(f"no cascadezoo model on the Hub has {text!r} in its name", err=True)


def _note(model: SearchResult) -> str:
    notes = ["gated"] * model.gated + ["private"] * model.private
    return ", ".join(notes + [f"in the zoo: {name}" for name in model.zoo]) or "-"


def _tags(model: SearchResult) -> str:
    # Tags with a colon come from the Hub: licence, dataset, region.
    return ", ".join(tag for tag in model.tags if ":" not in tag and tag != "cascadezoo")


def _row(listed: ListedModel) -> dict[str, Any]:
    origin = listed.origin
    return {
        **_data(listed.model),
        "zoo": listed.zoo,
        "distribution": origin.distribution,
        "version": origin.version,
    }


def _data(model: ZooModel) -> dict[str, Any]:
    from cascadezoo.zoo.manifest import model_dict

    return {**model_dict(model), "bytes": model.bytes}


def _cells(listed: ListedModel) -> tuple[object, ...]:
    model = listed.model
    return (
        model.name,
        f"{model.data} {model.size}x{model.size}",
        human_count(model.parameters),
        human_bytes(model.bytes),
        _headline(model),
        listed.origin,
        model.description,
    )


def _headline(model: ZooModel) -> str | None:
    """The KID, or else the first figure of quality."""
    names = [name for name in model.metrics if not name.startswith("images-per-second")]
    name = next((name for name in names if name.startswith("kid.")), next(iter(names), None))
    return None if name is None else f"{name} {_figure(name, model.metrics[name])}"


def _figure(name: str, figure: ZooFigure) -> str:
    scale, suffix = (1000, " x 10^-3") if name.startswith("kid.") else (1, "")
    unit = "" if figure.unit is None else f" {figure.unit}"
    return f"{spread(figure.value, figure.std, scale, decimals=2)}{suffix}{unit}"


def _location(model: ZooModel) -> str:
    place = "ships with cascadezoo" if model.bundled else f"{model.repo}@{model.commit}"
    return f"{place}, {len(model.files)} files, {human_bytes(model.bytes)}"


def _show_faults(zoos: Zoos) -> None:
    for fault in zoos.faults:
        echo(f"Problem: {clean(fault)}", err=True)
