"""The checks of a whole plugin: that it loads, and its import cost."""

from __future__ import annotations

import functools

from cascadezoo.plugins.manager import Plugin, PluginHost
from cascadezoo.plugins.patches import patches
from cascadezoo.testing.check_report import (
    CheckError,
    CheckSkippedError,
    Report,
    raise_fault,
    run_checks,
)
from cascadezoo.testing.import_checks import Imported, check_light, import_apart

__all__ = ["check_manners", "check_plugin"]


def check_plugin(host: PluginHost, plugin: Plugin) -> Report:
    """Check that a plugin loads fast, without problems and torch, and that its entries import."""

    @functools.cache
    def imported() -> Imported:
        if plugin.state == "disabled":
            raise CheckSkippedError(f"disabled by {plugin.disabled_by}")
        return import_apart(plugin.target)

    def loads() -> None:
        if plugin.state == "disabled":
            raise CheckSkippedError(f"disabled by {plugin.disabled_by}")
        problems = [p for p in host.problems if p.origin == plugin.origin]
        if problems:
            rows = (f"{p.message}{f' [{p.where}]' if p.where else ''}" for p in problems)
            raise CheckError("; ".join(rows))
        if not plugin.names:
            raise CheckError("registers nothing: mark its hooks with @cascadezoo.hookimpl")

    def light() -> None:
        result = imported()
        raise_fault(str(result) if result.fault is not None else check_light(result))

    def imports() -> None:
        # Skipped checks of an entry would hide that it cannot be imported at all.
        for entry in host.entries_of(plugin):
            entry.load_config()
            entry.load()

    checks = {"loads": loads, "module-without-torch": light, "imports": imports}
    return run_checks(f"plugin {plugin.origin.plugin} {plugin.origin.version}", checks)


def check_manners(host: PluginHost, plugin: Plugin) -> Report:
    """Check, after all entries were used, that a plugin has not replaced code of cascadezoo."""

    def changes_nothing() -> None:
        packages = {e.impl.partition(".")[0].partition(":")[0] for e in host.entries_of(plugin)}
        for package in sorted(packages | {plugin.package}):
            found = patches({package}).get(package, [])
            if found:
                raise CheckError(f"{package} replaces {', '.join(found[:3])}, which others use")

    checks = {"changes-nothing": changes_nothing}
    return run_checks(f"plugin {plugin.origin.plugin} {plugin.origin.version}", checks)
