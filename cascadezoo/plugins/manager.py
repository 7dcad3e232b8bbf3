"""Finds plugins by their entry points and collects what they register.

A plugin that is broken is reported as a :class:`PluginProblem` and never takes others down.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pluggy

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
    SpecEntry,
    StageEntry,
    Table,
    ZooEntry,
)

__all__ = [
    "BLOCK_VARIABLE",
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
BLOCK_VARIABLE = "CASCADEZOO_BLOCK_PLUGINS"
BUILTIN_DISTRIBUTION = "cascadezoo"
LEVEL_NAME = "CASCADEZOO_API"
"""What a plugin calls the level of the plugin contract that it was written for."""

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
_FAULTS = "has faults (cascadezoo plugins list)"


class PluginProblem(NamedTuple):
    """What is wrong with an installed plugin, and where in its source when that is known."""

    origin: Origin
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
        target: what the entry point names, a module or an object in one.
        implementation: that module or object, once it is imported.
        state: ``loaded``; ``faulty``: part of it is wrong, the rest is in use;
            ``broken``: it cannot be imported; ``incompatible``: it is for another API level;
            ``disabled`` by ``disabled_by``.
        disabled_by: the variable that keeps it from loading, else None.
        hooks: the hooks that it implements.
        names: what it registers, by sort.
    """

    origin: Origin
    target: str
    implementation: Any = None
    state: str = "loaded"
    disabled_by: str | None = None
    hooks: list[str] = field(default_factory=list)
    names: dict[str, list[str]] = field(default_factory=dict)

    @property
    def package(self) -> str:
        """The package that the entry point leads into."""
        return self.target.partition(":")[0].partition(".")[0].strip()

    @property
    def module(self) -> ModuleType | None:
        """The module that the entry point names, or that holds the object it names."""
        return sys.modules.get(self.target.partition(":")[0].strip())


class _Manager(pluggy.PluginManager):
    """Leaves out hook implementations that failed validation, and says which one failed last."""

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


class PluginHost:
    """The installed plugins, what they register, and what is wrong with them.

    Args:
        points: entry points to load; None takes the installed ones of the group ``cascadezoo``.
        limit: the distributions, or plugins as ``distribution:name``, that may load besides
            cascadezoo itself; None is no limit.
        blocked: the distributions, or plugins as ``distribution:name``, that do not load.
            cascadezoo itself is never blocked.

    Attributes:
        manager: the pluggy manager. Its plugins are registered as ``distribution:name``.
        registry: what the plugins register.
        plugins: all plugins, those of cascadezoo first, then by name.
        problems: what is wrong with them.
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
        self._places: dict[tuple[Origin, str, str], str | None] = {}
        found = entry_points(group=hookspecs.ENTRY_POINT_GROUP) if points is None else points
        rows = [(_origin(point), point) for point in found]
        for origin, point in sorted(rows, key=lambda row: _order(row[0])):
            plugin = Plugin(origin, point.value)
            self.plugins.append(plugin)
            self._block(plugin, limit, blocked)
            if not self.manager.is_blocked(origin.plugin):
                self._load(plugin, point)
        # pluggy calls last what is registered first, and the first plugins are to be called first.
        for plugin in reversed(self.plugins):
            if plugin.state == "loaded":
                self._register(plugin)
        for hook, (entry_type, table) in _HOOKS.items():
            self._collect(hook, entry_type, getattr(self.registry, table))
        faulty = {problem.origin for problem in self.problems}
        for plugin in self.plugins:
            if plugin.state == "loaded" and plugin.origin in faulty:
                plugin.state = "faulty"

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
        return self._places.get((plugin.origin, entry.what, entry.name))

    def reserve_commands(self, names: Iterable[str]) -> None:
        """Take commands of these names from the plugins that claim them, and say so."""
        table = self.registry.commands
        for name in set(names) & {*table.rows, *table.contested}:
            row = table.rows.pop(name, None)
            for origin in [row.origin] if row else table.contested.pop(name):
                (plugin,) = (p for p in self.plugins if p.origin == origin)
                where = self._places.get((origin, CommandEntry.what, name))
                message = f"command {name!r} is one of cascadezoo's own, which no plugin replaces"
                self._report(origin, message, where)
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
        self._unusable(origin, f"is left out by {plugin.disabled_by}")

    def _load(self, plugin: Plugin, point: EntryPoint) -> None:
        with watch_imports(plugin.package) as heavy:
            try:
                plugin.implementation = point.load()
            except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's; shown, not raised
                self._give_up(plugin, error, _point_line(point))
                return
        for found in heavy[:1]:
            message = f"imports {found.package} when it is loaded, and every command waits for it"
            self._report(plugin.origin, message, found.where)
        fault = self._no_plugin(plugin)
        if fault is not None:
            self._report(plugin.origin, fault, _point_line(point))
            self._unusable(plugin.origin, _NOT_LOADED)
            plugin.state = "broken"
            return
        self._check_level(plugin)

    def _no_plugin(self, plugin: Plugin) -> str | None:
        """Why what an entry point names cannot be registered."""
        target = plugin.implementation
        if target is None:
            return "its entry point names None, which is neither a module nor an object"
        for other in self.plugins:
            # pluggy compares plugins by equality, and an object may equal anything.
            if other is not plugin and other.implementation == target:
                return f"its entry point names what {other.origin.plugin} registers already"
        return None

    def _give_up(self, plugin: Plugin, error: BaseException, where: str | None) -> None:
        message = f"cannot be loaded: {type(error).__name__}: {_first_line(error)}"
        self._report(plugin.origin, message, blame(error, plugin.package) or where)
        self._unusable(plugin.origin, _NOT_LOADED)
        plugin.state = "broken"

    def _unusable(self, origin: Origin, why: str) -> None:
        if canonical_name(origin.distribution) != BUILTIN_DISTRIBUTION:
            self.registry.unusable[origin.distribution] = why

    def _check_level(self, plugin: Plugin) -> None:
        of_module = getattr(plugin.module, LEVEL_NAME, API_LEVEL)
        level = getattr(plugin.implementation, LEVEL_NAME, of_module)
        if level == API_LEVEL and not isinstance(level, bool):
            return
        message, hint = _other_level("it", level, plugin.origin)
        self._report(plugin.origin, f"{message}; {hint}", _level_line(plugin.module))
        self._unusable(plugin.origin, f"is for plugin API level {level}: {hint}")
        plugin.state = "incompatible"

    def _register(self, plugin: Plugin) -> None:
        """Register a plugin with pluggy, without the hooks that pluggy or cascadezoo refuses."""
        try:
            self._check_marks(plugin)
            while not self._registered(plugin):
                pass
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's; shown, not raised
            self._give_up(plugin, error, None)

    def _registered(self, plugin: Plugin) -> bool:
        """Try to register; False after an implementation was refused."""
        manager = self.manager
        assert isinstance(manager, _Manager)  # noqa: S101 - made above
        target = plugin.implementation
        try:
            manager.register(target, plugin.origin.plugin)
        except pluggy.PluginValidationError as error:
            name = manager.parsed
            function = getattr(target, name, None)
            reason = str(error).splitlines()[-1]
            message = f"{name}() is no valid hook implementation: {reason}"
        else:
            try:
                manager.check_pending()
                return True
            except pluggy.PluginValidationError:
                # Only this plugin's are pending: what others had was refused before.
                name, hook, function = next(_pending(manager, target))
                known = ", ".join(_HOOKS)
                message = f"{hook!r} is no hook of cascadezoo; hooks are {known}"
        self._report(plugin.origin, message, _definition(function))
        if manager.get_plugin(plugin.origin.plugin) is not None:
            manager.unregister(name=plugin.origin.plugin)
        manager.refused.add((id(target), name))
        return False

    def _check_marks(self, plugin: Plugin) -> None:
        """Report functions that are named as hooks and are not marked as such."""
        for name in _HOOKS:
            function = getattr(plugin.implementation, name, None)
            if inspect.isroutine(function) and not _is_marked(function):
                message = f"{name!r} is not marked with @cascadezoo.hookimpl, so it is not called"
                self._report(plugin.origin, message, _definition(function))

    def _collect(self, hook: str, entry_type: type[Entry], table: Table[Any]) -> None:
        """Call each implementation of a hook by itself, and enter what it gives."""
        implementations = getattr(self.manager.hook, hook).get_hookimpls()
        wrappers = [i for i in implementations if i.wrapper or i.hookwrapper]
        for implementation in implementations:
            hooks = self._plugin_of(implementation).hooks
            if hook not in hooks:
                hooks.append(hook)
        for implementation in reversed(implementations):
            if implementation in wrappers:
                continue
            plugin = self._plugin_of(implementation)
            where = _definition(implementation.function)
            for entry in self._call(hook, implementation, wrappers):
                fault = self._enter(plugin, hook, entry, entry_type, table, where)
                if fault is not None:
                    self._report(plugin.origin, fault, where)

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
        """What a wrapper makes of the entries; they stay as they are where it fails."""

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
        return entries if changed is None else self._unforged(hook, wrapper, entries, changed)

    def _unforged(
        self, hook: str, wrapper: pluggy.HookImpl, entries: list[Any], changed: list[Any]
    ) -> list[Any]:
        """The changed entries, without those that are not the wrapped plugin's own.

        A kind means the same to all who name it, so a wrapper never brings another
        implementation under a name.
        """
        own = {getattr(e, "name", None): _substance(e) for e in entries}
        kept = []
        for entry in changed:
            name = getattr(entry, "name", None)
            if own.get(name) == _substance(entry):
                kept.append(entry)
                continue
            origin = self._plugin_of(wrapper).origin
            message = (
                f"the wrapper of {hook}() adds or replaces {name!r}; a wrapper may drop entries, "
                "and change their summary, title and deprecation"
            )
            self._report(origin, message, _definition(wrapper.function))
            self._unusable(origin, _FAULTS)
        return kept

    def _guarded(
        self, hook: str, implementation: pluggy.HookImpl, call: Callable[[], Any]
    ) -> Any | None:
        """What a plugin's code returns; None, and a problem of that plugin, where it raises."""
        plugin = self._plugin_of(implementation)
        where = _definition(implementation.function)
        with watch_imports(plugin.package) as heavy:
            try:
                result = call()
            except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's; shown, not raised
                message = f"{hook}() raised {type(error).__name__}: {_first_line(error)}"
                self._report(plugin.origin, message, blame(error, plugin.package) or where)
                self._unusable(plugin.origin, _FAULTS)
                return None
        for found in heavy[:1]:
            message = f"{hook}() imports {found.package}, and every command waits for it"
            self._report(plugin.origin, message, found.where)
        return result

    def _plugin_of(self, implementation: pluggy.HookImpl) -> Plugin:
        name = implementation.plugin_name
        return next(p for p in self.plugins if p.origin.plugin == name and p.state == "loaded")

    def _enter(
        self,
        plugin: Plugin,
        hook: str,
        entry: Any,
        entry_type: type[Entry],
        table: Table[Any],
        where: str | None,
    ) -> str | None:
        """Put an entry into its table; returns what is wrong with it."""
        if not isinstance(entry, entry_type):
            self._unusable(plugin.origin, _FAULTS)
            return f"{hook}() gave a {type(entry).__name__}, not a {entry_type.__name__}"
        if entry.api != API_LEVEL:
            message, hint = _other_level(f"{entry.what} {entry.name!r}", entry.api, plugin.origin)
            table.refused[entry.name] = (f"{message} ({plugin.origin})", hint)
            return f"{message}; {hint}"
        plugin.names.setdefault(table.what, []).append(entry.name)
        self._places[plugin.origin, entry.what, entry.name] = where
        return table.add(entry, plugin.origin)

    def _report(self, origin: Origin, message: str, where: str | None) -> None:
        self.problems.append(PluginProblem(origin, message, where))


@functools.cache
def get_host() -> PluginHost:
    """The host of the installed plugins, loaded once in a process.

    ``CASCADEZOO_LOAD_PLUGINS=a,b`` limits loading to those distributions (empty: none), and
    ``CASCADEZOO_BLOCK_PLUGINS=a,b`` keeps those from loading. Both take ``distribution`` and
    ``distribution:name``. What cascadezoo itself registers is always there.
    """
    limit = _names(LIMIT_VARIABLE)
    host = PluginHost(limit=limit, blocked=_names(BLOCK_VARIABLE) or frozenset())
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


def _names(variable: str) -> frozenset[str] | None:
    """The plugins that a variable names; None where it is not set."""
    value = os.environ.get(variable)
    if value is None:
        return None
    return frozenset(_plugin_name(part.strip()) for part in value.split(",") if part.strip())


def _plugin_name(text: str) -> str:
    """``distribution`` or ``distribution:name``, the distribution as the index spells it."""
    distribution, colon, name = text.partition(":")
    return f"{canonical_name(distribution)}{colon}{name}"


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


def _pending(manager: pluggy.PluginManager, target: Any) -> Iterator[tuple[str, str, Any]]:
    """Attribute, hook and function of what implements a hook that has no specification."""
    for caller in manager.get_hookcallers(target) or ():
        if caller.has_spec():
            continue
        for implementation in caller.get_hookimpls():
            if implementation.plugin is target and not implementation.optionalhook:
                function = implementation.function
                names = (n for n in dir(target) if getattr(target, n, None) == function)
                yield next(names, function.__name__), caller.name, function


def _substance(entry: Any) -> Any:
    """What of an entry no wrapper may change: all but what is shown of it."""
    if not isinstance(entry, Entry):
        return id(entry)
    shown = {"summary", "deprecated", "title"}
    return type(entry), [getattr(entry, f.name) for f in fields(entry) if f.name not in shown]


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
            if line.lstrip().startswith(LEVEL_NAME):
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
