"""Finds plugins by their entry points and collects what they register.

A plugin that is broken is reported as a :class:`PluginProblem` and never takes others down.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import re
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import FunctionType
from typing import Any

from cascadezoo.errors import PluginError
from cascadezoo.plugins import hookspecs
from cascadezoo.plugins.import_guard import is_import_machinery, watch_imports
from cascadezoo.plugins.registry import (
    API_LEVEL,
    CallbackEntry,
    CommandEntry,
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
    "BUILTIN_DISTRIBUTION",
    "LIMIT_VARIABLE",
    "Plugin",
    "PluginHost",
    "PluginProblem",
    "blame",
    "canonical_name",
    "get_host",
    "get_registry",
]

LIMIT_VARIABLE = "CASCADEZOO_LOAD_PLUGINS"
BUILTIN_DISTRIBUTION = "cascadezoo"
LEVEL_NAME = "CASCADEZOO_API"
"""What a plugin's module calls the level of the plugin contract that it was written for."""

_HOOKS: dict[str, tuple[type[Entry], str]] = {
    "register_stages": (StageEntry, "stages"),
    "register_datasets": (DataEntry, "datasets"),
    "register_losses": (LossEntry, "losses"),
    "register_metrics": (MetricEntry, "metrics"),
    "register_features": (FeatureEntry, "features"),
    "register_zoos": (ZooEntry, "zoos"),
    "register_commands": (CommandEntry, "commands"),
    "register_callbacks": (CallbackEntry, "callbacks"),
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
    """One entry point of the group ``cascadezoo``.

    Args:
        origin: the distribution and the entry point.
        target: what the entry point names, a module.
        module: that module, once it is imported.
        state: ``loaded``; ``faulty``: something of it is not right, the rest is in use;
            ``broken``: it cannot be imported; ``incompatible``: it is for another API level;
            ``disabled`` by ``CASCADEZOO_LOAD_PLUGINS``.
        hooks: the hooks that it implements.
        names: what it registers, by sort.
    """

    origin: Origin
    target: str
    module: Any = None
    state: str = "loaded"
    hooks: list[str] = field(default_factory=list)
    names: dict[str, list[str]] = field(default_factory=dict)

    @property
    def package(self) -> str:
        """The package that the entry point leads into."""
        return self.target.partition(":")[0].partition(".")[0].strip()


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
        found = entry_points(group=hookspecs.ENTRY_POINT_GROUP) if points is None else points
        rows = [(_origin(point), point) for point in found]
        for origin, point in sorted(rows, key=lambda row: _order(row[0])):
            self._load(origin, point, limit)

    def problems_of(self, distribution: str) -> list[PluginProblem]:
        """The problems of one distribution's plugins."""
        wanted = canonical_name(distribution)
        return [p for p in self.problems if canonical_name(p.origin.distribution) == wanted]

    def entries_of(self, plugin: Plugin) -> list[Entry]:
        """What a plugin registers and is in use."""
        rows = [row for table in self.registry.tables() for row in table]
        return [row.entry for row in rows if row.origin == plugin.origin]

    def registered_at(self, plugin: Plugin, entry: Entry) -> str | None:
        """File and line of the hook that registered an entry."""
        hooks = [hook for hook, (sort, _) in _HOOKS.items() if isinstance(entry, sort)]
        return next((_definition(getattr(plugin.module, hook, None)) for hook in hooks), None)

    def reserve_commands(self, names: Iterable[str]) -> None:
        """Take commands of these names from the plugins that claim them, and say so."""
        table = self.registry.commands
        for name in set(names) & {*table.rows, *table.contested}:
            row = table.rows.pop(name, None)
            for origin in [row.origin] if row else table.contested.pop(name):
                (plugin,) = (p for p in self.plugins if p.origin == origin)
                where = _definition(getattr(plugin.module, "register_commands", None))
                message = f"command {name!r} is one of cascadezoo's own, which no plugin replaces"
                self._report(origin, message, where)
                plugin.state = "faulty"

    def _load(self, origin: Origin, point: EntryPoint, limit: frozenset[str] | None) -> None:
        plugin = Plugin(origin, point.value)
        self.plugins.append(plugin)
        name = canonical_name(origin.distribution)
        if limit is not None and name != BUILTIN_DISTRIBUTION and name not in limit:
            plugin.state = "disabled"
            self._unusable(origin, f"is left out by {LIMIT_VARIABLE}")
            return
        before = len(self.problems)
        with watch_imports(plugin.package) as heavy:
            try:
                plugin.module = point.load()
            except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's; shown, not raised
                self._give_up(plugin, error, _point_line(point))
                return
        for found in heavy[:1]:
            message = f"imports {found.package} when it is loaded, and every command waits for it"
            self._report(origin, message, found.where)
        if not self._speaks_our_level(plugin):
            return
        self._check_hooks(plugin)
        for hook, (entry_type, table) in _HOOKS.items():
            self._collect(plugin, hook, entry_type, getattr(self.registry, table))
        if len(self.problems) > before:
            plugin.state = "faulty"

    def _give_up(self, plugin: Plugin, error: BaseException, where: str | None) -> None:
        message = f"cannot be loaded: {type(error).__name__}: {_first_line(error)}"
        self._report(plugin.origin, message, blame(error, plugin.package) or where)
        self._unusable(plugin.origin, "cannot be loaded (cascadezoo plugins list)")
        plugin.state = "broken"

    def _unusable(self, origin: Origin, why: str) -> None:
        if canonical_name(origin.distribution) != BUILTIN_DISTRIBUTION:
            self.registry.unusable[origin.distribution] = why

    def _speaks_our_level(self, plugin: Plugin) -> bool:
        level = getattr(plugin.module, LEVEL_NAME, API_LEVEL)
        if level == API_LEVEL and not isinstance(level, bool):
            return True
        message, hint = _other_level("it", level, plugin.origin)
        self._report(plugin.origin, f"{message}; {hint}", _level_line(plugin.module))
        self._unusable(plugin.origin, f"is for plugin API level {level}: {hint}")
        plugin.state = "incompatible"
        return False

    def _check_hooks(self, plugin: Plugin) -> None:
        """Report functions that were meant as hooks and are none."""
        known = ", ".join(_HOOKS)
        for name in dir(plugin.module):
            function = getattr(plugin.module, name, None)
            if not isinstance(function, FunctionType):
                continue
            marked = _is_marked(function)
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
        if function is None or not _is_marked(function):
            return
        plugin.hooks.append(hook)
        where = _definition(function)
        with watch_imports(plugin.package) as heavy:
            try:
                entries = list(function())
            except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's; shown, not raised
                message = f"{hook}() raised {type(error).__name__}: {_first_line(error)}"
                self._report(plugin.origin, message, blame(error, plugin.package) or where)
                self._unusable(plugin.origin, "has faults (cascadezoo plugins list)")
                return
        for found in heavy[:1]:
            message = f"{hook}() imports {found.package}, and every command waits for it"
            self._report(plugin.origin, message, found.where)
        for entry in entries:
            fault = self._enter(plugin, hook, entry, entry_type, table)
            if fault is not None:
                self._report(plugin.origin, fault, where)

    def _enter(
        self, plugin: Plugin, hook: str, entry: Any, entry_type: type[Entry], table: Table[Any]
    ) -> str | None:
        """Put an entry into its table; returns what is wrong with it."""
        if not isinstance(entry, entry_type):
            self._unusable(plugin.origin, "has faults (cascadezoo plugins list)")
            return f"{hook}() gave a {type(entry).__name__}, not a {entry_type.__name__}"
        if entry.api != API_LEVEL:
            message, hint = _other_level(f"{entry.what} {entry.name!r}", entry.api, plugin.origin)
            table.refused[entry.name] = (f"{message} ({plugin.origin})", hint)
            return f"{message}; {hint}"
        plugin.names.setdefault(table.what, []).append(entry.name)
        return table.add(entry, plugin.origin)

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
            code="plugin-builtin-missing",
        )
    return host


def get_registry() -> Registry:
    """What the installed plugins register."""
    return get_host().registry


def _origin(point: EntryPoint) -> Origin:
    name, version = point.value.partition(":")[0], "unknown"
    if point.dist is not None:
        about = point.dist.metadata  # parsed each time that it is asked for
        name = about["Name"] if "Name" in about else name  # noqa: SIM401 - it has no get
        version = about["Version"] if "Version" in about else version  # noqa: SIM401
    return Origin(name, version, f"{name}:{point.name}")


def _order(origin: Origin) -> tuple[bool, str, str]:
    name = canonical_name(origin.distribution)
    return name != BUILTIN_DISTRIBUTION, name, origin.plugin


def canonical_name(name: str) -> str:
    """A distribution's name as the index spells it: lower case, with dashes."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0]


def _is_marked(function: Any) -> bool:
    return getattr(function, "cascadezoo_impl", None) is not None


def _other_level(what: str, level: Any, origin: Origin) -> tuple[str, str]:
    message = f"{what} is written for API level {level!r}; this cascadezoo speaks level {API_LEVEL}"
    newer = isinstance(level, int) and level > API_LEVEL
    name = BUILTIN_DISTRIBUTION if newer else origin.distribution
    return message, f"pip install --upgrade {name}"


def _definition(function: Any) -> str | None:
    code = getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None
    return None if code is None else f"{code.co_filename}:{code.co_firstlineno}"


def _level_line(module: Any) -> str | None:
    """Where a module states its API level."""
    file = getattr(module, "__file__", None)
    if file is None:
        return None
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for number, line in enumerate(Path(file).read_text(encoding="utf-8").splitlines(), 1):
            if line.startswith(LEVEL_NAME):
                return f"{file}:{number}"
    return str(file)


def _point_line(point: EntryPoint) -> str | None:
    """The line of entry_points.txt that states an entry point."""
    if point.dist is None:
        return None
    name = canonical_name(point.dist.name)
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for folder in Path(str(point.dist.locate_file(""))).glob("*-info"):
            path = folder / "entry_points.txt"
            if canonical_name(folder.name.partition("-")[0]) != name or not path.is_file():
                continue
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                if line.partition("=")[0].strip() == point.name:
                    return f"{path}:{number}"
    return None


def blame(error: BaseException, package: str) -> str | None:
    """The plugin's own deepest line; of a syntax error, the line that it names."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    places = list(_frames(error))
    own = (place for place, top in places if top == package)
    # Of our own lines none is to blame.
    others = (place for place, top in places if top != BUILTIN_DISTRIBUTION)
    return next(own, None) or next(others, None)


def _frames(error: BaseException) -> Iterator[tuple[str, str]]:
    """File and line of each frame, and the top package, from the deepest outwards."""
    rows = list(traceback.walk_tb(error.__traceback__))
    for frame, line in reversed(rows):
        file = frame.f_code.co_filename
        if not is_import_machinery(file) and file != __file__:
            yield f"{file}:{line}", str(frame.f_globals.get("__name__", "")).partition(".")[0]
