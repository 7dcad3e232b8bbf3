"""``cascadezoo plugins check``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from cascadezoo.cli.options import examples, json_option
from cascadezoo.cli.output import clean, echo, echo_json

if TYPE_CHECKING:
    from cascadezoo.plugins.manager import Plugin, PluginHost
    from cascadezoo.testing import Report


@click.command(
    "check",
    epilog=examples(
        "cascadezoo plugins check",
        "cascadezoo plugins check cascadezoo-wave --set wave.v1:channels=8",
        "cascadezoo plugins check cascadezoo-wave --skip compile --json",
    ),
)
@click.argument("name", metavar="[NAME]", required=False)
@click.option(
    "--set",
    "settings",
    metavar="ENTRY:PATH=VALUE",
    multiple=True,
    help="Settings of an entry: wave.v1:channels=8. Small networks are faster to check.",
)
@click.option("--skip", multiple=True, metavar="CHECK", help="Skip a check; may be repeated.")
@json_option
@click.pass_context
def check(
    ctx: click.Context,
    name: str | None,
    settings: tuple[str, ...],
    skip: tuple[str, ...],
    as_json: bool,
) -> None:
    """Check what plugins register against the contract.

    NAME is an installed distribution; without it all plugins are checked. The exit code is 1 if a
    check fails. cascadezoo.testing has the same checks for the plugin's own tests. The settings of
    [tool.cascadezoo.check."wave.v1"] in the plugin's pyproject.toml apply: config, output,
    neighbour, num_classes, skip.
    """
    from cascadezoo.plugins.manager import get_host

    host = get_host()
    plugins = _chosen(host, name)
    configs = _settings(settings, host, plugins)
    rows = []
    for plugin in plugins:
        for report in _reports(host, plugin, configs, skip):
            rows.append((plugin, report))
            if not as_json:
                echo(clean(report, keep="\n"))
    if as_json:
        echo_json([_row(plugin, report) for plugin, report in rows])
    elif not plugins:
        echo("no plugins are installed")
    else:
        results = [result for _, report in rows for result in report.results]
        failed = sum(not result.ok for result in results)
        echo(f"\n{len(results)} checks, {f'{failed} failed' if failed else 'all ok'}")
    if any(not report.ok for _, report in rows):
        ctx.exit(1)


def _chosen(host: PluginHost, name: str | None) -> list[Plugin]:
    from cascadezoo.errors import UnknownNameError
    from cascadezoo.plugins.manager import BUILTIN_DISTRIBUTION, canonical_name

    def distribution(plugin: Plugin) -> str:
        return canonical_name(plugin.origin.distribution)

    if name is None:
        return [plugin for plugin in host.plugins if distribution(plugin) != BUILTIN_DISTRIBUTION]
    for wanted in (canonical_name(name), canonical_name(f"{BUILTIN_DISTRIBUTION}-{name}")):
        matches = [plugin for plugin in host.plugins if distribution(plugin) == wanted]
        if matches:
            return matches
    listed = ", ".join(sorted({distribution(plugin) for plugin in host.plugins}))
    raise UnknownNameError(
        f"no plugin of the distribution {name!r} is installed",
        hint=f"installed: {listed}",
        code="lookup-plugin",
        name=name,
    )


def _settings(
    settings: tuple[str, ...], host: PluginHost, plugins: list[Plugin]
) -> dict[str, dict[str, Any]]:
    from cascadezoo.errors import InputError
    from cascadezoo.spec import apply_settings

    known = [entry.name for plugin in plugins for entry in host.entries_of(plugin)]
    configs: dict[str, dict[str, Any]] = {}
    for setting in settings:
        name, colon, rest = setting.partition(":")
        if not colon or name not in known:
            raise InputError(
                f"--set {setting!r} does not have the form ENTRY:PATH=VALUE",
                hint=f"the checked entries are {', '.join(known) or 'none'}",
                code="input-setting-form",
                setting=setting,
            )
        configs[name] = apply_settings(configs.get(name, {}), [rest])
    return configs


def _reports(
    host: PluginHost, plugin: Plugin, settings: dict[str, dict[str, Any]], skip: tuple[str, ...]
) -> Iterator[Report]:
    from cascadezoo.testing import check_entry, check_names
    from cascadezoo.testing.plugin_check import check_manners, check_plugin
    from cascadezoo.testing.settings import CheckSettings, find_settings

    known = check_names(host.entries_of(plugin))
    unknown = sorted(set(skip) - known)
    if unknown:
        raise click.UsageError(
            f"unknown check {unknown[0]!r}; the checks are {', '.join(sorted(known))}"
        )
    stated = find_settings(plugin.origin.distribution)
    yield check_plugin(host, plugin)
    for entry in host.entries_of(plugin):
        own = stated.get(entry.name, CheckSettings())
        skipped = {*skip, *own.skip} & check_names([entry])
        config = {**own.config, **settings.get(entry.name, {})}
        yield check_entry(entry, config, place=own.place(), skip=skipped)
    yield check_manners(host, plugin)


def _row(plugin: Plugin, report: Report) -> dict[str, Any]:
    return {
        "distribution": plugin.origin.distribution,
        "subject": report.subject,
        "ok": report.ok,
        "checks": [result.to_dict() for result in report.results],
    }
