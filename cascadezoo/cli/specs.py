"""``cascadezoo specs list`` and ``cascadezoo specs show``."""

from __future__ import annotations

import difflib
from typing import Any

import click

from cascadezoo.cli.completion import complete_specs
from cascadezoo.cli.lazy import Commands
from cascadezoo.cli.options import examples, json_option
from cascadezoo.cli.output import clean, echo, echo_json, table
from cascadezoo.errors import CascadezooError, UnknownNameError


@click.group("specs", cls=Commands)
def command() -> None:
    """List and show the specs that ship with cascadezoo and its plugins."""


@command.command("list", epilog=examples("cascadezoo specs list", "cascadezoo specs list --json"))
@json_option
def list_(as_json: bool) -> None:
    """List the shipped specs, and the distribution that each comes from.

    Use a name with build, validate and plan.
    """
    from cascadezoo.plugins.manager import get_registry
    from cascadezoo.spec.files import parse_json

    rows: list[dict[str, Any]] = []
    for row in get_registry().specs:
        entry, problem = row.entry, None
        data: dict[str, Any] = {}
        try:
            data = parse_json(entry.load(), entry.name)
        except CascadezooError as error:
            problem = str(error)
            echo(clean(problem), err=True)
        rows.append(
            {
                "name": entry.name,
                "description": data.get("description") or entry.summary,
                "distribution": row.origin.distribution,
                "version": row.origin.version,
                "problem": problem,
            }
        )
    if as_json:
        echo_json(rows)
    else:
        cells = [(r["name"], r["distribution"], r["description"]) for r in rows]
        echo(table(("SPEC", "FROM", "DESCRIPTION"), cells))


@command.command(
    "show",
    epilog=examples(
        "cascadezoo specs show shapes-demo > mine.json",
        "cascadezoo validate shapes-demo --resolved    with every default written out",
    ),
)
@click.argument("name", shell_complete=complete_specs)
@click.option("--json", "as_json", is_flag=True, help="Has no effect: a spec is always JSON.")
def show(name: str, as_json: bool) -> None:
    """Print a shipped spec as written, to start your own from."""
    from cascadezoo.spec.files import read_spec, shipped_specs

    names = shipped_specs()
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"the specs are {', '.join(names)}"
        raise UnknownNameError(
            f"unknown shipped spec {name!r}",
            hint=hint,
            code="lookup-shipped-spec",
            name=name,
        )
    echo_json(read_spec(name)[0])
