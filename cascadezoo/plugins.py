"""Finds plugins by their entry points and collects what they register.

A plugin that is broken is reported as a :class:`PluginProblem` and never takes others down.
"""

from __future__ import annotations

import functools
import inspect
import os
import re
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any

import pluggy

from cascadezoo import hookspecs
from cascadezoo.errors import PluginError
from cascadezoo.registry import (
    API_LEVEL,
    DataEntry,
    Entry,
    FeatureEntry,
    LossEntry,
    MetricEntry,
    Origin,
    Registry,
    StageEntry,
    Table,
    ZooEntry,
)

__all__ = [
    "Plugin",
    "PluginHost",
    "PluginProblem",
    "canonical_name",
    "get_host",
    "get_registry",
]

LIMIT_VARIABLE = "CASCADEZOO_LOAD_PLUGINS"
BUILTIN_DISTRIBUTION = "cascadezoo"

_HOOKS: dict[str, tuple[type[Entry], str]] = {
    "register_stages": (StageEntry, "stages"),
    "register_datasets": (DataEntry, "datasets"),
    "register_losses": (LossEntry, "losses"),
    "register_metrics": (MetricEntry, "metrics"),
    "register_features": (FeatureEntry, "features"),
    "register_zoos": (ZooEntry, "zoos"),
}


@dataclass(frozen=True, slots=True)
class PluginProblem:
    """What is wrong with an installed plugin, and where in its source when that is known."""

    origin: Origin
    message: str
    where: str | None = None

    def __str__(self) -> str:
        place = f" [{self.where}]" if self.where else ""
        return f"{self.origin.plugin} ({self.origin}): {self.message}{place}"


@dataclass(slots=True)
class Plugin:
    """One entry point of the group ``cascadezoo``."""

    origin: Origin
    target: str
    module: Any = None
    state: str = "loaded"
    hooks: list[str] = field(default_factory=list)
    names: dict[str, list[str]] = field(default_factory=dict)


class PluginHost:
    """The installed plugins, what they register, and what is wrong with them.

    Args:
        points: entry points to load; None takes the installed ones of the group ``cascadezoo``.
        limit: the distributions that may load besides cascadezoo itself; None is no limit.
    """

    def __init__(
        self, points: Iterable[EntryPoint] | None = None, limit: frozenset[str] | None = None
    ) -> None:
        self.registry = Registry()
        self.plugins: list[Plugin] = []
        self.problems: list[PluginProblem] = []
        self._manager = pluggy.PluginManager("cascadezoo")
        self._manager.add_hookspecs(hookspecs)
        found = entry_points(group=hookspecs.ENTRY_POINT_GROUP) if points is None else points
        rows = [(_origin(point), point) for point in found]
        for origin, point in sorted(rows, key=lambda row: _order(row[0])):
            self._load(origin, point, limit)

    def problems_of(self, distribution: str) -> list[PluginProblem]:
        """The problems of one distribution's plugins."""
        wanted = canonical_name(distribution)
        return [p for p in self.problems if canonical_name(p.origin.distribution) == wanted]

    def _load(self, origin: Origin, point: EntryPoint, limit: frozenset[str] | None) -> None:
        plugin = Plugin(origin, point.value)
        self.plugins.append(plugin)
        name = canonical_name(origin.distribution)
        if limit is not None and name != BUILTIN_DISTRIBUTION and name not in limit:
            plugin.state = "disabled"
            return
        before = len(self.problems)
        try:
            plugin.module = point.load()
            self._manager.register(plugin.module, name=origin.plugin)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's import; shown, not raised
            message = f"cannot be loaded: {type(error).__name__}: {_first_line(error)}"
            self._report(origin, message, _blame(error, plugin.module))
            plugin.state = "broken"
            return
        self._check_hook_names(plugin)
        for hook, (entry_type, table) in _HOOKS.items():
            self._collect(plugin, hook, entry_type, getattr(self.registry, table))
        if len(self.problems) > before:
            plugin.state = "faulty"

    def _check_hook_names(self, plugin: Plugin) -> None:
        known = ", ".join(_HOOKS)
        for name in dir(plugin.module):
            function = getattr(plugin.module, name, None)
            if not inspect.isroutine(function):
                continue
            marked = getattr(function, "cascadezoo_impl", None) is not None
            if marked and name not in _HOOKS:
                message = f"{name!r} is no hook of cascadezoo; hooks are {known}"
            elif not marked and name in _HOOKS:
                message = f"{name!r} is not marked with @cascadezoo.hookimpl, so it is not called"
            else:
                continue
            self._report(plugin.origin, message, _definition(function))

    def _collect(
        self, plugin: Plugin, hook: str, entry_type: type[Entry], table: Table[Any]
    ) -> None:
        function = getattr(plugin.module, hook, None)
        if function is None or getattr(function, "cascadezoo_impl", None) is None:
            return
        plugin.hooks.append(hook)
        where = _definition(function)
        try:
            entries = list(function())
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's hook; shown, not raised
            message = f"{hook}() raised {type(error).__name__}: {_first_line(error)}"
            self._report(plugin.origin, message, _blame(error, plugin.module))
            return
        for entry in entries:
            if not isinstance(entry, entry_type):
                message = f"{hook}() gave a {type(entry).__name__}, not a {entry_type.__name__}"
            elif entry.api != API_LEVEL:
                message = (
                    f"{entry.name!r} is written for API level {entry.api}; "
                    f"this cascadezoo speaks level {API_LEVEL}"
                )
            else:
                plugin.names.setdefault(table.what, []).append(entry.name)
                clash = table.add(entry, plugin.origin)
                if clash is None:
                    continue
                message = clash
            self._report(plugin.origin, message, where)

    def _report(self, origin: Origin, message: str, where: str | None) -> None:
        self.problems.append(PluginProblem(origin, message, where))


@functools.cache
def get_host() -> PluginHost:
    """The host of the installed plugins, loaded once in a process.

    ``CASCADEZOO_LOAD_PLUGINS=a,b`` limits loading to those distributions (empty: none); what
    cascadezoo itself registers is always there.
    """
    value = os.environ.get(LIMIT_VARIABLE)
    limit = None
    if value is not None:
        limit = frozenset(canonical_name(part.strip()) for part in value.split(",") if part.strip())
    host = PluginHost(limit=limit)
    if not any(canonical_name(p.origin.distribution) == BUILTIN_DISTRIBUTION for p in host.plugins):
        raise PluginError(
            "cascadezoo's own stages are not registered: it is imported but not installed",
            hint="pip install . (or pip install -e . in a checkout)",
        )
    return host


def get_registry() -> Registry:
    """What the installed plugins register."""
    return get_host().registry


def _origin(point: EntryPoint) -> Origin:
    dist = point.dist
    name = dist.name if dist is not None else point.module
    version = dist.version if dist is not None else "unknown"
    return Origin(name, version, f"{name}:{point.name}")


def _order(origin: Origin) -> tuple[bool, str, str]:
    name = canonical_name(origin.distribution)
    return name != BUILTIN_DISTRIBUTION, name, origin.plugin


def canonical_name(name: str) -> str:
    """A distribution's name as the index spells it: lower case, with dashes."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0]


def _definition(function: Any) -> str | None:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return None if code is None else f"{code.co_filename}:{code.co_firstlineno}"


def _blame(error: BaseException, module: ModuleType | None) -> str | None:
    """File and line of the plugin's own deepest frame; of a syntax error, the line it names."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    return next(_frames(error), None)


def _frames(error: BaseException) -> Iterator[str]:
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        inside = "importlib" in frame.filename or frame.filename == __file__
        if not inside:
            yield f"{frame.filename}:{frame.lineno}"
