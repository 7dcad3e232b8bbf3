"""``cascadezoo stages list`` and ``cascadezoo stages show``."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, Any

import click

from cascadezoo.cli.completion import complete_kinds
from cascadezoo.cli.lazy import Commands
from cascadezoo.cli.options import examples, json_option
from cascadezoo.cli.output import clean, echo, echo_json, table

if TYPE_CHECKING:
    from cascadezoo.plugins.registry import Registered, StageEntry
    from cascadezoo.spec.configs import Option

ROLES = ("generator", "upsampler", "refiner", "decoder")


@click.group("stages", cls=Commands)
def command() -> None:
    """List and explain the installed stage kinds."""


@command.command(
    "list",
    epilog=examples(
        "cascadezoo stages list",
        "cascadezoo stages list 'diffusion*'",
        "cascadezoo stages list --role refiner --json",
    ),
)
@click.argument("pattern", metavar="[GLOB]", default="*")
@click.option("--role", type=click.Choice(ROLES), help="Only kinds of this role.")
@json_option
def list_(pattern: str, role: str | None, as_json: bool) -> None:
    """List the installed stage kinds."""
    from cascadezoo.plugins.manager import get_host

    host = get_host()
    stages = host.registry.stages
    names = set(stages.names(pattern))
    rows = [r for r in stages if r.entry.name in names and role in (None, r.entry.role)]
    if as_json:
        echo_json([_row(row) for row in rows])
        return
    if rows:
        cells = [(r.entry.name, r.entry.role, r.origin, _summary(r.entry)) for r in rows]
        echo(table(("KIND", "ROLE", "FROM", "SUMMARY"), cells))
    else:
        text = f"no installed stage kind matches {pattern!r}"
        echo(text if role is None else f"{text} with the role {role}", err=True)
    if host.problems:
        echo("\nSome plugins have problems: cascadezoo plugins list", err=True)


@command.command(
    "show",
    epilog=examples(
        "cascadezoo stages show flow.v1",
        "cascadezoo stages show diffusion --json",
    ),
)
@click.argument("kind", shell_complete=complete_kinds)
@json_option
def show(kind: str, as_json: bool) -> None:
    """Explain a stage kind and every field of its config.

    KIND without a version means the newest version.
    """
    from cascadezoo.cli.config_fields import describe
    from cascadezoo.plugins.manager import get_registry
    from cascadezoo.spec.schema import kind_schema

    row = get_registry().stages.get(kind)
    schema = kind_schema(row.entry.name)
    fields = describe(schema)
    options = getattr(row.entry.load_config(), "sampling_options", {})
    if as_json:
        config = [field.to_dict() for field in fields]
        description = schema.get("description", "")
        data = {**_row(row), "description": description, "config": config}
        echo_json({**data, "options": [_option(name, o) for name, o in sorted(options.items())]})
        return
    echo(f"{row.entry.name}: {clean(_summary(row.entry))}")
    article = "an" if row.entry.role[0] in "aeiou" else "a"
    echo(f"{article} {row.entry.role} from {clean(row.origin)}")
    if description := schema.get("description"):
        echo(f"\n{clean(description, keep=chr(10))}")
    echo("\nconfig:" if fields else "\nIt has no settings.")
    for field in fields:
        default = "required" if field.required else f"default {json.dumps(field.default)}"
        echo(f"  {clean(field.name)}: {clean(field.type)}; {clean(default)}")
        if field.description:
            echo(textwrap.fill(clean(field.description), 96, **_INDENT))
    if options:
        echo("\noptions of sample --option:")
    for name, option in sorted(options.items()):
        echo(f"  {clean(name)}: {clean(option)}")
        if option.help:
            echo(textwrap.fill(clean(option.help), 96, **_INDENT))


_INDENT: dict[str, Any] = {"initial_indent": "      ", "subsequent_indent": "      "}


def _option(name: str, option: Option) -> dict[str, Any]:
    return {
        "name": name,
        "type": option.type.__name__,
        "low": option.low,
        "high": option.high,
        "help": option.help,
    }


def _summary(entry: StageEntry) -> str:
    if entry.deprecated is None:
        return entry.summary
    return f"{entry.summary} (deprecated: {entry.deprecated})"


def _row(row: Registered[StageEntry]) -> dict[str, Any]:
    return {
        "kind": row.entry.name,
        "role": row.entry.role,
        "summary": row.entry.summary,
        "deprecated": row.entry.deprecated,
        "distribution": row.origin.distribution,
        "version": row.origin.version,
    }
