"""Finds plugins by their entry points and collects their entries.

A broken plugin is reported as a :class:`PluginProblem` and does not affect others.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pluggy

from cascadezoo.errors import PluginError
from cascadezoo.plugins import hookspecs
from cascadezoo.plugins.import_guard import watch_imports
from cascadezoo.plugins.patches import patches
from cascadezoo.plugins.registry import (
    API_LEVEL,
    BUILTIN_DISTRIBUTION,
    CallbackEntry,
    CommandEntry,
    DataEntry,
    Entry,
    FeatureEntry,
    LossEntry,
    MetricEntry,
    Origin,
    Registry,
    SpecEntry,
    StageEntry,
    Table,
    ZooEntry,
    canonical_name,
    is_builtin,
)
from cascadezoo.plugins.requirements import (
    LEVEL_NAME,
    UPGRADE,
    Misfit,
    level_misfit,
    metadata_of,
    missing_name,
    stated_level,
    version_misfit,
)
from cascadezoo.plugins.tracebacks import blame, definition

__all__ = [
    "BLOCK_VARIABLE",
    "BUILTIN_DISTRIBUTION",
    "LIMIT_VARIABLE",
    "Plugin",
    "PluginHost",
    "PluginProblem",
    "canonical_name",
    "get_host",
    "get_registry",
]

LIMIT_VARIABLE = "CASCADEZOO_LOAD_PLUGINS"
BLOCK_VARIABLE = "CASCADEZOO_BLOCK_PLUGINS"
SLOW = 0.5
"""Seconds to load a plugin above which it is named."""

_HOOKS: dict[str, tuple[type[Entry], str]] = {
    "register_stages": (StageEntry, "stages"),
    "register_datasets": (DataEntry, "datasets"),
    "register_losses": (LossEntry, "losses"),
    "register_metrics": (MetricEntry, "metrics"),
    "register_features": (FeatureEntry, "features"),
    "register_zoos": (ZooEntry, "zoos"),
    "register_specs": (SpecEntry, "specs"),
    "register_commands": (CommandEntry, "commands"),
    "register_callbacks": (CallbackEntry, "callbacks"),
}

_NOT_LOADED = "cannot be loaded (cascadezoo plugins list)"
_FAULTY = "has problems (cascadezoo plugins list)"


class PluginProblem(NamedTuple):
    """A problem of an installed plugin.

    Args:
        origin: the plugin.
        code: the case, in kebab-case, such as ``import-failed`` or ``hook-unknown``.
        message: what is wrong.
        where: file and line, if known.
    """

    origin: Origin
    code: str
    message: str
    where: str | None = None

    def __str__(self) -> str:
        place = f" [{self.where}]" if self.where else ""
        return f"{self.origin.plugin} ({self.origin}): {self.message}{place}"


@dataclass(slots=True, eq=False)
class Plugin:
    """One entry point of the group ``cascadezoo``.

    Args:
        origin: the distribution and the entry point.
        target: the value of the entry point: a module or an object in one.
        implementation: that module or object, once imported.
        state: ``loaded``; ``faulty``: it has problems, and the rest of it is in use;
            ``broken``: it cannot be imported; ``incompatible``: it is for another API level;
            ``disabled`` by ``disabled_by``.
        disabled_by: the environment variable that disables it, else None.
        hooks: the hooks that it implements.
        names: the names of its entries by type.
        seconds: the time that its import and hooks took, without waiting for a busy processor.
    """

    origin: Origin
    target: str
    implementation: Any = None
    state: str = "loaded"
    disabled_by: str | None = None
    hooks: list[str] = field(default_factory=list)
    names: dict[str, list[str]] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def package(self) -> str:
        """The package of the entry point."""
        return self.target.partition(":")[0].partition(".")[0].strip()

    @property
    def module(self) -> ModuleType | None:
        """The module of the entry point."""
        return sys.modules.get(self.target.partition(":")[0].strip())


class _Manager(pluggy.PluginManager):
    """Skips hook implementations that failed validation, and records which one was parsed last."""

    def __init__(self) -> None:
        super().__init__(hookspecs.hookspec.project_name)
        self.add_hookspecs(hookspecs)
        self.refused: set[tuple[int, str]] = set()
        self.parsed = ""

    def parse_hookimpl_opts(self, plugin: Any, name: str) -> Any:
        if (id(plugin), name) in self.refused:
            return None
        options = super().parse_hookimpl_opts(plugin, name)
        if options is not None:
            # register() validates each implementation before it parses the next.
            self.parsed = name
        return options


_NOTABLE = 0.05
"""Seconds from which on it is worth knowing how long a plugin waited for a busy processor."""


class _Apart:
    """Times the code of a plugin, and sends what it prints to stderr."""

    __slots__ = ("_began", "_host", "_plugin", "_stdout")

    def __init__(self, host: PluginHost, plugin: Plugin) -> None:
        self._host, self._plugin = host, plugin

    def __enter__(self) -> None:
        self._stdout, sys.stdout = sys.stdout, sys.stderr
        if self._plugin.implementation is None:
            # Only imports are worth the time to read this; hooks take what was read last.
            self._host.waited = _waited()
        self._began = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        sys.stdout = self._stdout
        seconds = time.perf_counter() - self._began
        if seconds > _NOTABLE:
            waited = _waited()
            seconds -= min(seconds, waited - self._host.waited)
            self._host.waited = waited
        self._plugin.seconds += seconds


class PluginHost:
    """The installed plugins, their entries and their problems.

    Args:
        points: entry points to load; None loads the installed ones of the group ``cascadezoo``.
        limit: load only these distributions, or plugins as ``distribution:name``, and the built-in
            plugin; None loads all.
        blocked: do not load these distributions, or plugins as ``distribution:name``. The built-in
            plugin cannot be blocked.

    Attributes:
        manager: the pluggy manager. Its plugins are registered as ``distribution:name``.
        registry: the entries of the plugins.
        plugins: all plugins: the built-in one first, then by name.
        problems: the problems of the plugins.
    """

    def __init__(
        self,
        points: Iterable[EntryPoint] | None = None,
        limit: frozenset[str] | None = None,
        blocked: frozenset[str] = frozenset(),
    ) -> None:
        self.manager: pluggy.PluginManager = _Manager()
        self.registry = Registry()
        self.plugins: list[Plugin] = []
        self.problems: list[PluginProblem] = []
        self._locations: dict[tuple[Origin, str, str], str | None] = {}
        self.waited = _waited()
        if points is None:
            points = entry_points(group=hookspecs.ENTRY_POINT_GROUP)
        rows = [(_origin(point), point) for point in points]
        for origin, point in sorted(rows, key=lambda row: _order(row[0])):
            plugin = Plugin(origin, point.value)
            self.plugins.append(plugin)
            self._block(plugin, limit, blocked)
            if not self.manager.is_blocked(origin.plugin):
                self._load(plugin, point)
        # pluggy calls plugins in reverse order of registration.
        for plugin in reversed(self.plugins):
            if plugin.state == "loaded":
                self._register(plugin)
        for hook, (entry_type, table) in _HOOKS.items():
            self._collect(hook, entry_type, getattr(self.registry, table))
        loaded = [plugin for plugin in self.plugins if plugin.implementation is not None]
        found = patches({p.package for p in loaded if p.package} - {BUILTIN_DISTRIBUTION})
        for plugin in loaded:
            self._check_manners(plugin, found.get(plugin.package, []))
        faulty = {problem.origin for problem in self.problems}
        for plugin in self.plugins:
            if plugin.state == "loaded" and plugin.origin in faulty:
                plugin.state = "faulty"

    def problems_of(self, distribution: str) -> list[PluginProblem]:
        """The problems of one distribution's plugins."""
        name = canonical_name(distribution)
        return [p for p in self.problems if canonical_name(p.origin.distribution) == name]

    def entries_of(self, plugin: Plugin) -> list[Entry]:
        """The entries of a plugin that are in use."""
        rows = [row for table in self.registry.tables() for row in table]
        return [row.entry for row in rows if row.origin == plugin.origin]

    def registered_at(self, plugin: Plugin, entry: Entry) -> str | None:
        """File and line of the hook that registered an entry."""
        return self._locations.get((plugin.origin, entry.what, entry.name))

    def reserve_commands(self, names: Iterable[str]) -> None:
        """Remove commands of plugins that have these names, and report them."""
        table = self.registry.commands
        for name in set(names) & {*table.rows, *table.contested}:
            row = table.rows.pop(name, None)
            for origin in [row.origin] if row else table.contested.pop(name):
                (plugin,) = (p for p in self.plugins if p.origin == origin)
                where = self._locations.get((origin, CommandEntry.what, name))
                message = f"command {name!r} is built in; a plugin cannot replace it"
                self._report(origin, "command-reserved", message, where)
                plugin.state = "faulty"

    def _block(self, plugin: Plugin, limit: frozenset[str] | None, blocked: frozenset[str]) -> None:
        origin = plugin.origin
        distribution = canonical_name(origin.distribution)
        if distribution == BUILTIN_DISTRIBUTION:
            return
        names = {distribution, _plugin_name(origin.plugin)}
        if names & blocked:
            plugin.disabled_by = BLOCK_VARIABLE
        elif limit is not None and not names & limit:
            plugin.disabled_by = LIMIT_VARIABLE
        else:
            return
        plugin.state = "disabled"
        self.manager.set_blocked(origin.plugin)
        self._mark_unusable(origin, f"is disabled by {plugin.disabled_by}")

    def _load(self, plugin: Plugin, point: EntryPoint) -> None:
        if self._is_misfit(plugin, point):
            return
        with watch_imports(plugin.package) as heavy, self._apart(plugin):
            try:
                plugin.implementation = point.load()
            except (Exception, SystemExit) as error:  # noqa: BLE001 - plugin code; reported
                self._mark_broken(plugin, error, _entry_point_line(point))
                return
        for imported in heavy[:1]:
            message = f"imports {imported.package} when it is loaded, which slows every command"
            self._report(plugin.origin, "imports-heavy", message, imported.where)
        fault = self._target_fault(plugin)
        if fault is not None:
            self._report(plugin.origin, *fault, _entry_point_line(point))
            self._mark_unusable(plugin.origin, _NOT_LOADED)
            plugin.state = "broken"
            return
        self._check_level(plugin)

    def _is_misfit(self, plugin: Plugin, point: EntryPoint) -> bool:
        """Report a plugin whose metadata or source states that it is for another cascadezoo."""
        if is_builtin(plugin.origin):
            return False
        misfit = version_misfit(point)
        if misfit is not None:
            misfit = misfit._replace(where=_entry_point_line(point))
        else:
            stated = stated_level(point)
            if stated is None or stated[0] == API_LEVEL:
                return False
            misfit = level_misfit("the plugin", stated[0], plugin.origin.distribution, stated[1])
        self._mark_incompatible(plugin, misfit)
        return True

    def _mark_incompatible(self, plugin: Plugin, misfit: Misfit) -> None:
        message = f"{misfit.message}; {misfit.hint}"
        self._report(plugin.origin, misfit.code, message, misfit.where)
        self._mark_unusable(plugin.origin, f"is for another cascadezoo: {message}")
        plugin.state = "incompatible"

    def _apart(self, plugin: Plugin) -> _Apart:
        """Time the code of a plugin, and send what it prints to stderr."""
        return _Apart(self, plugin)

    def _check_manners(self, plugin: Plugin, replaced: Sequence[str]) -> None:
        """Report a plugin that is slow to load, or that replaces names of cascadezoo."""
        heavy = any(p.origin == plugin.origin and p.code == "imports-heavy" for p in self.problems)
        if plugin.seconds > SLOW and not heavy and not is_builtin(plugin.origin):
            message = f"takes {plugin.seconds:.1f} s to load, which slows every command"
            self._report(plugin.origin, "import-slow", message, _definition_of(plugin))
        if replaced:
            more = f" and {len(replaced) - 1} more" if len(replaced) > 1 else ""
            message = (
                f"replaces {replaced[0]}{more}, which changes cascadezoo for every other plugin"
            )
            self._report(plugin.origin, "patches-cascadezoo", message, _definition_of(plugin))

    def _target_fault(self, plugin: Plugin) -> tuple[str, str] | None:
        """The code and message of a target that cannot be registered."""
        target = plugin.implementation
        if target is None:
            return "target-none", "its entry point refers to None, not to a module or object"
        for other in self.plugins:
            # pluggy compares plugins by equality, and an object may equal anything.
            if other is not plugin and other.implementation == target:
                message = f"its entry point refers to the same object as {other.origin.plugin}"
                return "target-registered", message
        return None

    def _mark_broken(self, plugin: Plugin, error: BaseException, where: str | None) -> None:
        message = f"cannot be loaded: {type(error).__name__}: {_first_line(error)}"
        advice = missing_name(error)
        message += "" if advice is None else f"; {advice}"
        self._report(plugin.origin, "import-failed", message, blame(error, plugin.package) or where)
        self._mark_unusable(plugin.origin, _NOT_LOADED)
        plugin.state = "broken"

    def _mark_unusable(self, origin: Origin, why: str) -> None:
        if canonical_name(origin.distribution) != BUILTIN_DISTRIBUTION:
            self.registry.unusable[origin.distribution] = why

    def _check_level(self, plugin: Plugin) -> None:
        of_module = getattr(plugin.module, LEVEL_NAME, API_LEVEL)
        level = getattr(plugin.implementation, LEVEL_NAME, of_module)
        if level == API_LEVEL and not isinstance(level, bool):
            return
        misfit = level_misfit("the plugin", level, plugin.origin.distribution)
        self._mark_incompatible(plugin, misfit._replace(where=_definition_of(plugin)))

    def _register(self, plugin: Plugin) -> None:
        """Register a plugin with pluggy, without the hooks that pluggy or cascadezoo rejects."""
        try:
            self._check_marks(plugin)
            while not self._try_register(plugin):
                pass
        except (Exception, SystemExit) as error:  # noqa: BLE001 - plugin code; reported
            self._mark_broken(plugin, error, None)

    def _try_register(self, plugin: Plugin) -> bool:
        """Try to register; False after an implementation was rejected."""
        manager = self.manager
        assert isinstance(manager, _Manager)  # noqa: S101 - made above
        target = plugin.implementation
        try:
            manager.register(target, plugin.origin.plugin)
        except pluggy.PluginValidationError as error:
            name = manager.parsed
            function = getattr(target, name, None)
            reason = str(error).splitlines()[-1]
            code, message = "hook-invalid", f"{name}() is not a valid hook: {reason}"
        else:
            try:
                manager.check_pending()
                return True
            except pluggy.PluginValidationError:
                # Only hooks of this plugin are pending: those of others were rejected before.
                name, hook, function = next(_pending(manager, target))
                known = ", ".join(_HOOKS)
                code, message = "hook-unknown", f"unknown hook {hook!r}; the hooks are {known}"
        self._report(plugin.origin, code, message, definition(function))
        if manager.get_plugin(plugin.origin.plugin) is not None:
            manager.unregister(name=plugin.origin.plugin)
        manager.refused.add((id(target), name))
        return False

    def _check_marks(self, plugin: Plugin) -> None:
        """Report functions that have the name of a hook but are not marked as one."""
        for name in _HOOKS:
            function = getattr(plugin.implementation, name, None)
            if inspect.isroutine(function) and not _is_marked(function):
                message = f"{name!r} is not marked with @cascadezoo.hookimpl, so it is not called"
                self._report(plugin.origin, "hook-unmarked", message, definition(function))

    def _collect(self, hook: str, entry_type: type[Entry], table: Table[Any]) -> None:
        """Call each implementation of a hook separately, and add its entries."""
        implementations = getattr(self.manager.hook, hook).get_hookimpls()
        wrappers = [i for i in implementations if i.wrapper or i.hookwrapper]
        for implementation in implementations:
            hooks = self._plugin_of(implementation).hooks
            if hook not in hooks:
                hooks.append(hook)
        called = [
            (self._plugin_of(i), definition(i.function), self._call(hook, i, wrappers))
            for i in reversed(implementations)
            if i not in wrappers
        ]
        # Names of cascadezoo come first, even if a plugin is called first.
        for plugin, where, entries in sorted(called, key=lambda row: not is_builtin(row[0].origin)):
            for entry in entries:
                fault = self._add(plugin, hook, entry, entry_type, table, where)
                if fault is not None:
                    self._report(plugin.origin, *fault, where)

    def _call(
        self, hook: str, implementation: pluggy.HookImpl, wrappers: list[pluggy.HookImpl]
    ) -> list[Any]:
        """The entries of one implementation, inside all wrappers of the hook."""
        call = functools.partial(self._entries, hook, implementation)
        for wrapper in wrappers:  # the last one registered is called first
            call = functools.partial(self._wrapped, hook, wrapper, call)
        return call()

    def _entries(self, hook: str, implementation: pluggy.HookImpl) -> list[Any]:
        function = implementation.function
        entries: list[Any] | None = self._guarded(
            hook,
            implementation,
            lambda: list(function()),  # type: ignore[call-overload]
        )
        return [] if entries is None else entries

    def _wrapped(
        self, hook: str, wrapper: pluggy.HookImpl, call: Callable[[], list[Any]]
    ) -> list[Any]:
        """The entries as a wrapper changes them; unchanged if it fails."""

        def start() -> Any:
            generator = wrapper.function()
            try:
                next(generator)  # type: ignore[call-overload]
            except StopIteration:
                raise RuntimeError("the wrapper did not yield") from None
            return generator

        def finish() -> list[Any]:
            outcome = pluggy.Result.from_call(lambda: [list(entries)])
            try:
                generator.send(outcome if wrapper.hookwrapper else outcome.get_result())
            except StopIteration as end:
                results = outcome.get_result() if wrapper.hookwrapper else end.value
                return [entry for result in results for entry in result]
            generator.close()
            raise RuntimeError("the wrapper yielded twice")

        generator: Any = self._guarded(hook, wrapper, start)
        entries = call()
        if generator is None:
            return entries
        changed = self._guarded(hook, wrapper, finish)
        return entries if changed is None else self._allowed(hook, wrapper, entries, changed)

    def _allowed(
        self, hook: str, wrapper: pluggy.HookImpl, entries: list[Any], changed: list[Any]
    ) -> list[Any]:
        """The changed entries, without those that the wrapped plugin did not register.

        A kind must mean the same to all users, so a wrapper cannot put another implementation
        under its name.
        """
        own = {getattr(e, "name", None): _fixed_fields(e) for e in entries}
        kept = []
        for entry in changed:
            name = getattr(entry, "name", None)
            if own.get(name) == _fixed_fields(entry):
                kept.append(entry)
                continue
            origin = self._plugin_of(wrapper).origin
            message = (
                f"the wrapper of {hook}() adds or replaces {name!r}; a wrapper may only drop "
                "entries, or change their summary, title and deprecation"
            )
            self._report(origin, "wrapper-replaces", message, definition(wrapper.function))
            self._mark_unusable(origin, _FAULTY)
        return kept

    def _guarded(
        self, hook: str, implementation: pluggy.HookImpl, call: Callable[[], Any]
    ) -> Any | None:
        """The result of plugin code; if it raises, None and a problem of the plugin."""
        plugin = self._plugin_of(implementation)
        where = definition(implementation.function)
        with watch_imports(plugin.package) as heavy, self._apart(plugin):
            try:
                result = call()
            except (Exception, SystemExit) as error:  # noqa: BLE001 - plugin code; reported
                code, message = _hook_fault(hook, error)
                place = blame(error, plugin.package) or where
                self._report(plugin.origin, code, message, place)
                self._mark_unusable(plugin.origin, _FAULTY)
                return None
        for imported in heavy[:1]:
            message = f"{hook}() imports {imported.package}, which slows every command"
            self._report(plugin.origin, "imports-heavy", message, imported.where)
        return result

    def _plugin_of(self, implementation: pluggy.HookImpl) -> Plugin:
        name = implementation.plugin_name
        return next(p for p in self.plugins if p.origin.plugin == name and p.state == "loaded")

    def _add(
        self,
        plugin: Plugin,
        hook: str,
        entry: Any,
        entry_type: type[Entry],
        table: Table[Any],
        where: str | None,
    ) -> tuple[str, str] | None:
        """Add an entry to its table; returns the code and message of what is wrong with it."""
        if not isinstance(entry, entry_type):
            self._mark_unusable(plugin.origin, _FAULTY)
            message = f"{hook}() returned a {type(entry).__name__}, not a {entry_type.__name__}"
            return "entry-type", message
        if entry.api != API_LEVEL:
            what = f"{entry.what} {entry.name!r}"
            misfit = level_misfit(what, entry.api, plugin.origin.distribution)
            table.refused[entry.name] = (f"{misfit.message} ({plugin.origin})", misfit.hint)
            return "api-level", f"{misfit.message}; {misfit.hint}"
        plugin.names.setdefault(table.what, []).append(entry.name)
        self._locations[plugin.origin, entry.what, entry.name] = where
        conflict = table.add(entry, plugin.origin)
        if conflict is not None:
            code, message, at_fault = conflict
            for origin in at_fault:
                place = self._locations.get((origin, entry.what, entry.name))
                self._report(origin, code, message, place)
        return None

    def _report(self, origin: Origin, code: str, message: str, where: str | None) -> None:
        self.problems.append(PluginProblem(origin, code, message, where))


@functools.cache
def get_host() -> PluginHost:
    """The host of the installed plugins, loaded once in a process.

    ``CASCADEZOO_LOAD_PLUGINS=a,b`` loads only these distributions (empty: none), and
    ``CASCADEZOO_BLOCK_PLUGINS=a,b`` does not load these. Both accept ``distribution`` and
    ``distribution:name``. The built-in plugin always loads.

    Raises:
        PluginError: the built-in plugin is not installed.
    """
    limit = _names(LIMIT_VARIABLE)
    host = PluginHost(limit=limit, blocked=_names(BLOCK_VARIABLE) or frozenset())
    if not any(canonical_name(p.origin.distribution) == BUILTIN_DISTRIBUTION for p in host.plugins):
        raise PluginError(
            "the built-in stages are not registered: cascadezoo is imported but not installed",
            hint="pip install . (or pip install -e . in a checkout)",
            code="plugin-builtin-missing",
        )
    for problem in host.problems:
        if problem.code in ("import-slow", "patches-cascadezoo"):
            import logging  # slow: only for a warning

            logging.getLogger(BUILTIN_DISTRIBUTION).warning("Warning: the plugin %s", problem)
    return host


def get_registry() -> Registry:
    """The entries of the installed plugins."""
    return get_host().registry


def _names(variable: str) -> frozenset[str] | None:
    """The plugins that an environment variable lists; None if it is not set."""
    value = os.environ.get(variable)
    if value is None:
        return None
    return frozenset(_plugin_name(part.strip()) for part in value.split(",") if part.strip())


def _plugin_name(text: str) -> str:
    """``distribution`` or ``distribution:name``, with the canonical name of the distribution."""
    distribution, colon, name = text.partition(":")
    return f"{canonical_name(distribution)}{colon}{name}"


def _origin(point: EntryPoint) -> Origin:
    name, version = point.value.partition(":")[0], "unknown"
    if point.dist is not None:
        metadata = metadata_of(point.dist)
        name = metadata.get("Name", [name])[0]
        version = metadata.get("Version", [version])[0]
    return Origin(name, version, f"{name}:{point.name}")


def _order(origin: Origin) -> tuple[bool, str, str]:
    name = canonical_name(origin.distribution)
    return name != BUILTIN_DISTRIBUTION, name, origin.plugin


def _waited() -> float:
    """Seconds that this thread has waited for a busy processor, if the system reports them.

    They are no fault of a plugin.
    """
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def _definition_of(plugin: Plugin) -> str | None:
    """File and line of a plugin's module: the line of its API level, else the first."""
    file = getattr(plugin.module, "__file__", None)
    if file is None:
        return None
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for number, line in enumerate(Path(file).read_text(encoding="utf-8").splitlines(), 1):
            if line.lstrip().startswith(LEVEL_NAME):
                return f"{file}:{number}"
    return str(file)


_FIELD = re.compile(r"(\w+Entry)\.__init__\(\) got an unexpected keyword argument '(\w+)'")


def _hook_fault(hook: str, error: BaseException) -> tuple[str, str]:
    """The code and message of an exception in a hook."""
    unknown = _FIELD.search(str(error)) if isinstance(error, TypeError) else None
    if unknown is not None:
        message = f"{hook}() gives a {unknown[1]} the unknown field {unknown[2]!r}"
        upgrade = f"the plugin may be for a newer cascadezoo: {UPGRADE}"
        return "entry-field-unknown", f"{message}; {upgrade}"
    message = f"{hook}() raised {type(error).__name__}: {_first_line(error)}"
    advice = missing_name(error)
    return "hook-failed", message if advice is None else f"{message}; {advice}"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0]


def _is_marked(function: Any) -> bool:
    return getattr(function, "cascadezoo_impl", None) is not None


def _pending(manager: pluggy.PluginManager, target: Any) -> Iterator[tuple[str, str, Any]]:
    """Attribute, hook and function of each implementation of an unknown hook."""
    for caller in manager.get_hookcallers(target) or ():
        if caller.has_spec():
            continue
        for implementation in caller.get_hookimpls():
            if implementation.plugin is target and not implementation.optionalhook:
                function = implementation.function
                names = (n for n in dir(target) if getattr(target, n, None) == function)
                yield next(names, function.__name__), caller.name, function


def _fixed_fields(entry: Any) -> Any:
    """The fields of an entry that a wrapper must not change: all but the displayed ones."""
    if not isinstance(entry, Entry):
        return id(entry)
    shown = {"summary", "deprecated", "title"}
    return type(entry), [getattr(entry, f.name) for f in fields(entry) if f.name not in shown]


def _entry_point_line(point: EntryPoint) -> str | None:
    """File and line of an entry point in entry_points.txt."""
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
