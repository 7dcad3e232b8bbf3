"""The checks of a plugin as a whole: that it loads, and what that costs."""

from __future__ import annotations

import functools

from cascadezoo.plugins.manager import Plugin, PluginHost
from cascadezoo.testing.check_report import CheckError, CheckSkippedError, Report, run_checks
from cascadezoo.testing.import_checks import Imported, check_light, import_apart

__all__ = ["check_plugin"]


def check_plugin(host: PluginHost, plugin: Plugin) -> Report:
    """That a plugin loads without problems, without torch and quickly, and registers something."""

    @functools.cache
    def imported() -> Imported:
        if plugin.state == "disabled":
            raise CheckSkippedError(f"it is not loaded ({plugin.disabled_by})")
        return import_apart(plugin.target)

    def loads() -> None:
        if plugin.state == "disabled":
            raise CheckSkippedError(f"it is not loaded ({plugin.disabled_by})")
        problems = [p for p in host.problems if p.origin == plugin.origin]
        if problems:
            rows = (f"{p.message}{f' [{p.where}]' if p.where else ''}" for p in problems)
            raise CheckError("; ".join(rows))
        if not plugin.names:
            raise CheckError("registers nothing: mark its hooks with @cascadezoo.hookimpl")

    def light() -> None:
        found = imported()
        fault = str(found) if found.fault is not None else check_light(found)
        if fault is not None:
            raise CheckError(fault)

    checks = {"loads": loads, "module-without-torch": light}
    return run_checks(f"plugin {plugin.origin.plugin} {plugin.origin.version}", checks)
