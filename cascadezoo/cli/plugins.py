"""``cascadezoo plugins``: ``list``, ``new``, ``check`` and ``search``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cascadezoo.cli.lazy import Commands, LazyGroup
from cascadezoo.cli.options import examples, json_option
from cascadezoo.cli.output import clean, echo, echo_json, table
from cascadezoo.cli.plugins_check import check
from cascadezoo.cli.plugins_search import search

if TYPE_CHECKING:
    from cascadezoo.plugins.manager import Plugin, PluginHost, PluginProblem

# The keys of cascadezoo.testing.template.KINDS; --help shows them without importing it.
KINDS = (
    "generator",
    "upsampler",
    "refiner",
    "decoder",
    "dataset",
    "metric",
    "loss",
    "features",
    "zoo",
    "specs",
    "command",
    "callback",
)


@click.group("plugins", cls=Commands)
def command() -> None:
    """List and check the installed plugins, find others, or create a new one."""


@command.command(
    "list",
    epilog=examples(
        "cascadezoo plugins list",
        "cascadezoo plugins list --all --json",
    ),
)
@click.option("--all", "everything", is_flag=True, help="Include the built-in entries.")
@json_option
@click.pass_context
def list_(ctx: click.Context, everything: bool, as_json: bool) -> None:
    """List the installed plugins, their entries and their problems.

    A broken plugin does not affect others; commands that need it report it.
    CASCADEZOO_LOAD_PLUGINS=a,b loads only those distributions; an empty value loads none.
    CASCADEZOO_BLOCK_PLUGINS=a,b:name blocks a distribution or one of its plugins.
    """
    from cascadezoo.plugins.manager import BUILTIN_DISTRIBUTION, get_host

    host = get_host()
    root = ctx.find_root().command
    if isinstance(root, LazyGroup):
        root.reserve(host)
    problems = {plugin.origin: _problems(host, plugin) for plugin in host.plugins}
    plugins = [
        plugin
        for plugin in host.plugins
        if everything
        or problems[plugin.origin]
        or plugin.origin.distribution != BUILTIN_DISTRIBUTION
    ]
    if as_json:
        echo_json([_row(plugin, problems[plugin.origin]) for plugin in plugins])
        return
    if not plugins:
        echo("no plugins are installed (--all shows the built-in entries)")
    else:
        rows = [(p, _state(p, problems[p.origin])) for p in plugins]
        cells = [(p.origin.plugin, p.origin.version, state, _names(p)) for p, state in rows]
        echo(table(("PLUGIN", "VERSION", "STATE", "REGISTERS"), cells))
    for plugin in plugins:
        for problem in problems[plugin.origin]:
            echo(f"\n{clean(problem.message)}\n  in {clean(plugin.origin.plugin)}")
            if problem.where:
                echo(f"  at {clean(problem.where)}")


@command.command(
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
    metavar="KIND",
    help=f"What the plugin provides: {', '.join(KINDS)}.",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The folder to write.  [default: cascadezoo-NAME]",
)
@json_option
@click.pass_context
def new(ctx: click.Context, name: str, kind: str, out: Path | None, as_json: bool) -> None:
    """Write a working project of a new plugin, as a starting point.

    NAME is the name of the distribution, with or without the prefix cascadezoo-.
    """
    from cascadezoo.testing.template import (
        described,
        project_name,
        refuse_builtin_command,
        write_project,
    )

    distribution = project_name(name)
    root = ctx.find_root().command
    if kind == "command" and isinstance(root, LazyGroup):
        refuse_builtin_command(distribution, root.table)
    folder = write_project(name, kind, out)
    files = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    if as_json:
        rows = {"distribution": distribution, "kind": kind, "folder": str(folder), "files": files}
        echo_json(rows)
        return
    echo(f"wrote a plugin with {described(kind)} to {clean(folder)}:")
    echo("\n".join(f"  {file}" for file in files))
    echo(
        f"\nTo install and check it:\n"
        f"  pip install -e {shlex.quote(str(folder))}\n"
        f"  cascadezoo plugins check {distribution}"
    )


command.add_command(check)
command.add_command(search)


def _names(plugin: Plugin) -> str:
    if plugin.state == "disabled":
        return f"not loaded ({plugin.disabled_by})"
    return "; ".join(f"{what}: {', '.join(names)}" for what, names in plugin.names.items()) or "-"


def _problems(host: PluginHost, plugin: Plugin) -> list[PluginProblem]:
    """The problems of loading a plugin and of the configs of its entries."""
    from cascadezoo.plugins.manager import BUILTIN_DISTRIBUTION, PluginProblem
    from cascadezoo.testing.import_checks import config_fault

    rows = [problem for problem in host.problems if problem.origin == plugin.origin]
    if plugin.origin.distribution == BUILTIN_DISTRIBUTION:
        return rows
    for entry in host.entries_of(plugin):
        fault = config_fault(entry)
        if fault is not None:
            where = fault[1] or host.registered_at(plugin, entry)
            message, _, heavy = fault
            code = "config-imports-heavy" if heavy else "config-unusable"
            rows.append(PluginProblem(plugin.origin, code, message, where))
    return rows


def _state(plugin: Plugin, problems: list[PluginProblem]) -> str:
    return "faulty" if problems and plugin.state == "loaded" else plugin.state


def _row(plugin: Plugin, problems: list[PluginProblem]) -> dict[str, Any]:
    return {
        "distribution": plugin.origin.distribution,
        "version": plugin.origin.version,
        "plugin": plugin.origin.plugin,
        "entry_point": plugin.target,
        "state": _state(plugin, problems),
        "hooks": plugin.hooks,
        "registers": plugin.names,
        "seconds": round(plugin.seconds, 3),
        "problems": [{"code": p.code, "message": p.message, "where": p.where} for p in problems],
    }
