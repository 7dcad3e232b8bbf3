"""``cascadezoo plugins list``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cascadezoo.cli.lazy import Commands
from cascadezoo.cli.options import examples, json_option
from cascadezoo.cli.output import clean, echo, echo_json, table

if TYPE_CHECKING:
    from cascadezoo.plugins import Plugin, PluginHost


@click.group("plugins", cls=Commands)
def command() -> None:
    """List the installed plugins and what is wrong with them."""


@command.command(
    "list",
    epilog=examples(
        "cascadezoo plugins list",
        "cascadezoo plugins list --all --json",
    ),
)
@click.option("--all", "everything", is_flag=True, help="Also what cascadezoo itself registers.")
@json_option
def list_(everything: bool, as_json: bool) -> None:
    """List the installed plugins, what each registers, and its problems.

    A broken plugin takes no other down; commands that need it say so. CASCADEZOO_LOAD_PLUGINS=a,b
    loads only those distributions, and none where it is empty.
    """
    from cascadezoo.plugins import BUILTIN_DISTRIBUTION, get_host

    host = get_host()
    plugins = [
        plugin
        for plugin in host.plugins
        if everything
        or _problems(host, plugin)
        or plugin.origin.distribution != BUILTIN_DISTRIBUTION
    ]
    if as_json:
        echo_json([_row(host, plugin) for plugin in plugins])
        return
    if not plugins:
        echo("no plugins are installed besides what cascadezoo itself brings (--all shows it)")
    else:
        echo(
            table(
                ("PLUGIN", "VERSION", "STATE", "REGISTERS"),
                [(p.origin.plugin, p.origin.version, p.state, _names(p)) for p in plugins],
            )
        )
    for plugin in plugins:
        for problem in _problems(host, plugin):
            echo(f"\n{clean(problem['message'])}\n  in {clean(plugin.origin.plugin)}")
            if problem["where"]:
                echo(f"  at {clean(problem['where'])}")


def _names(plugin: Plugin) -> str:
    if plugin.state == "disabled":
        return "not loaded (CASCADEZOO_LOAD_PLUGINS)"
    return "; ".join(f"{what}: {', '.join(names)}" for what, names in plugin.names.items()) or "-"


def _problems(host: PluginHost, plugin: Plugin) -> list[dict[str, str | None]]:
    return [
        {"message": problem.message, "where": problem.where}
        for problem in host.problems
        if problem.origin == plugin.origin
    ]


def _row(host: PluginHost, plugin: Plugin) -> dict[str, Any]:
    return {
        "distribution": plugin.origin.distribution,
        "version": plugin.origin.version,
        "plugin": plugin.origin.plugin,
        "entry_point": plugin.target,
        "state": plugin.state,
        "hooks": plugin.hooks,
        "registers": plugin.names,
        "problems": _problems(host, plugin),
    }
