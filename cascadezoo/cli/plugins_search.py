"""``cascadezoo plugins search``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cascadezoo.cli.options import Whole, examples, json_option
from cascadezoo.cli.output import clean, echo, echo_json, table
from cascadezoo.util.numbers import human_count

if TYPE_CHECKING:
    from cascadezoo.hub.search import SearchResult
    from cascadezoo.plugins.index import IndexedPlugin


@click.command(
    "search",
    epilog=examples(
        "cascadezoo plugins search",
        "cascadezoo plugins search upsampler --json",
        "cascadezoo plugins search gan --hub",
    ),
)
@click.argument("query", metavar="[QUERY]", default="")
@click.option(
    "--hub", "on_hub", is_flag=True, help="Search the Hub too, for the tag cascadezoo-plugin."
)
@click.option(
    "--limit",
    type=Whole(1, 1000),
    default=20,
    show_default=True,
    metavar="N",
    help="Number of repos of the Hub to show.",
)
@json_option
@click.pass_context
def search(ctx: click.Context, query: str, on_hub: bool, limit: int, as_json: bool) -> None:
    """Search the index of plugins, which ships with cascadezoo.

    Each word of QUERY must be part of a plugin's name, its description or the name of an entry;
    without it all plugins are shown. With --hub, QUERY is also searched in the names of repos.
    Nobody has reviewed those, unlike the index. Nothing is installed.

    The exit code is 1 if the Hub cannot be searched; the index is shown nevertheless.
    """
    from cascadezoo.plugins.index import search_index

    plugins = search_index(query)
    repos, problem = _search_hub(query, limit) if on_hub else (None, None)
    if as_json:
        echo_json(
            {
                "index": [plugin.to_dict() for plugin in plugins],
                "hub": None if repos is None else [repo.to_dict() for repo in repos],
                "problems": [] if problem is None else [problem],
            }
        )
    else:
        _show_index(plugins, query)
        if repos is not None:
            _show_hub(repos, query)
    if problem is not None:
        echo(f"\nThe Hub was not searched: {clean(problem)}", err=True)
        ctx.exit(1)


def _search_hub(query: str, limit: int) -> tuple[list[SearchResult] | None, str | None]:
    """The repos; None and the reason if the Hub cannot be searched."""
    from cascadezoo.errors import HubError
    from cascadezoo.hub.search import search_plugins

    try:
        return search_plugins(query, limit=limit), None
    except HubError as error:
        return None, error.what


def _show_index(plugins: list[IndexedPlugin], query: str) -> None:
    if not plugins:
        echo(f"the index has no plugin that matches {query!r}", err=True)
        return
    rows = [
        (p.name, p.versions[-1], p.installed or "-", _entries(p), p.description) for p in plugins
    ]
    echo(table(("PLUGIN", "VERSION", "INSTALLED", "REGISTERS", "DESCRIPTION"), rows))
    echo("")
    for plugin in plugins:
        echo(f"{plugin.name}: {plugin.url}")


def _entries(plugin: IndexedPlugin) -> str:
    return "; ".join(f"{what}: {', '.join(names)}" for what, names in plugin.registers.items())


def _show_hub(repos: list[SearchResult], query: str) -> None:
    if not repos:
        echo(f"\nno plugin on the Hub has {query!r} in its name", err=True)
        return
    rows = [(repo.repo, human_count(repo.downloads), repo.likes, repo.updated) for repo in repos]
    echo("\nOn the Hub, not reviewed:")
    echo(table(("REPO", "DOWNLOADS", "LIKES", "UPDATED"), rows, right=(1, 2)))
