"""The entries that plugins register, and their lookup. Entries hold import strings: no torch."""

from __future__ import annotations

import contextlib
import difflib
import fnmatch
import importlib
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, NamedTuple, TypeVar, get_args

from cascadezoo.errors import PluginError, UnknownNameError
from cascadezoo.plugins.names import canonical_name
from cascadezoo.plugins.tracebacks import blame
from cascadezoo.util.limits import is_out_of_memory

if TYPE_CHECKING:
    from cascadezoo.plugins.index import IndexedPlugin

__all__ = [
    "API_LEVEL",
    "BUILTIN_DISTRIBUTION",
    "CallbackEntry",
    "CascadezooDeprecationWarning",
    "CommandEntry",
    "DataEntry",
    "Entry",
    "FeatureEntry",
    "LossEntry",
    "MetricEntry",
    "Origin",
    "Registered",
    "Registry",
    "Role",
    "SpecEntry",
    "StageEntry",
    "Table",
    "ZooEntry",
    "canonical_name",
    "deprecated",
    "is_builtin",
]

BUILTIN_DISTRIBUTION = "cascadezoo"

API_LEVEL = 1
"""The level of the plugin contract in this version of cascadezoo.

It rises with a change that breaks correct plugins: a hook, a public name or a method of the
contract is removed or changes its meaning. Additions do not raise it.
"""

Role = Literal["generator", "upsampler", "refiner", "decoder"]

_NAME = r"[a-z][a-z0-9]*(-[a-z0-9]+)*"
_SPACED = rf"({_NAME}/)?{_NAME}"
_KIND = rf"{_SPACED}\.v[1-9][0-9]*"
_FOLDER = r"[A-Za-z_]\w*(/[A-Za-z0-9_-]+)+"
_TARGET = r"[A-Za-z_][\w.]*:[A-Za-z_]\w*"
_JSON_FILE = r"[A-Za-z_][\w.]*:[\w-]+(/[\w-]+)*\.json"

_UPGRADE = "cascadezoo plugins list shows which plugin provides it; upgrade or uninstall it"


class CascadezooDeprecationWarning(FutureWarning):
    """A feature is deprecated and will be removed. The message states the replacement."""


def deprecated(what: str, instead: str, *, stacklevel: int = 2) -> None:
    """Warn about a deprecated feature and state the replacement.

    Args:
        what: the deprecated feature, e.g. ``stage kind 'wave.v1'``.
        instead: what to do, e.g. ``use wave.v2``.
        stacklevel: the reported line, as for :func:`warnings.warn`: 1 is the line of this call.
    """
    text = f"{what} is deprecated: {instead}"
    warnings.warn(text, CascadezooDeprecationWarning, stacklevel=stacklevel + 1)


# Subclasses without fields inherit its methods: a decorator on each costs a millisecond at start.
@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A name, a one-line summary, and the import strings of its config and implementation.

    Args:
        name: the registry key, lower case with dashes (``cifar10``). Names of stages, datasets,
            losses and callbacks may begin with a namespace (``acme/cifar10``).
        summary: one line for ``list`` commands.
        config: ``package.module:Class`` of the pydantic config; its module must not import torch.
        impl: ``package.module:object`` of the implementation, imported when it is used.
        api: the level of the plugin contract that the entry was written for.
        deprecated: what to use instead of a deprecated entry (``use wave.v2``); using the entry
            warns.

    Raises:
        ValueError: a name or import string is malformed.
    """

    what: ClassVar[str] = "entry"

    name: str
    summary: str
    impl: str
    config: str = "cascadezoo.spec.configs:EmptyConfig"
    api: int = API_LEVEL
    deprecated: str | None = None

    def __post_init__(self) -> None:
        pattern, form = _NAME, "lower-case-name"
        if isinstance(self, StageEntry):
            pattern, form = _KIND, "name.v1 or namespace/name.v1"
        elif isinstance(self, (DataEntry, LossEntry, CallbackEntry)):
            pattern, form = _SPACED, "lower-case-name or namespace/lower-case-name"
        if not isinstance(self.name, str) or not re.fullmatch(pattern, self.name):
            raise ValueError(f"{self.what} name {self.name!r} does not have the form {form!r}")
        target = _TARGET, "package.module:Name"
        impl = (_JSON_FILE, "package:file.json") if isinstance(self, SpecEntry) else target
        for label, text, (pattern, form) in (
            ("config", self.config, target),
            ("impl", self.impl, impl),
        ):
            if not isinstance(text, str) or not re.fullmatch(pattern, text):
                what = f"{self.what} {self.name!r}: {label}={text!r}"
                raise ValueError(f"{what} does not have the form {form!r}")

        if self.deprecated is not None and not str(self.deprecated).strip():
            raise ValueError(
                f"{self.what} {self.name!r}: deprecated must state what to use instead"
            )

    def load_config(self) -> Any:
        """Import the config class."""
        return _load(self.config, self)

    def load(self) -> Any:
        """Import the implementation."""
        return _load(self.impl, self)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageEntry(Entry):
    """A stage kind, ``name.vN`` or ``namespace/name.vN``.

    ``impl`` is a :class:`~cascadezoo.Stage` subclass. A namespace, such as that of its author,
    keeps a kind apart from those of others.
    """

    what: ClassVar[str] = "stage"

    role: Role

    def __post_init__(self) -> None:
        super(StageEntry, self).__post_init__()
        if self.role not in get_args(Role):
            roles = ", ".join(get_args(Role))
            raise ValueError(f"stage {self.name!r}: role {self.role!r} is not one of {roles}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataEntry(Entry):
    """A dataset. ``impl`` is ``load(config, split) -> ImageData``.

    Args:
        source: ``package.module:object`` of ``open(config, split) -> ImageSource``, which gives the
            images still encoded, so that the dataset can be larger than the memory; None if it
            must fit into memory.

    Raises:
        ValueError: ``source`` is malformed.
    """

    what: ClassVar[str] = "dataset"

    source: str | None = None

    def __post_init__(self) -> None:
        super(DataEntry, self).__post_init__()
        text = self.source
        if text is not None and not (isinstance(text, str) and re.fullmatch(_TARGET, text)):
            raise ValueError(
                f"dataset {self.name!r}: source={text!r} does not have the form "
                "'package.module:Name'"
            )

    def load_source(self) -> Any:
        """Import the function that opens the encoded images; None if there is none."""
        return None if self.source is None else _load(self.source, self)


class LossEntry(Entry):
    """A loss between a stage's estimate and its target. ``impl`` is ``make(config, shape)``."""

    __slots__ = ()
    what: ClassVar[str] = "loss"


class FeatureEntry(Entry):
    """A feature extractor. ``impl`` is ``load(config, device) -> FeatureExtractor``."""

    __slots__ = ()
    what: ClassVar[str] = "feature extractor"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricEntry(Entry):
    """A metric of a cascade.

    ``impl`` is ``measure(config, inputs) -> float | Measured | Mapping[str, Measured]``. A mapping
    holds several figures; its keys are suffixes of the metric's name.

    Args:
        takes: what ``measure`` receives: the ``features`` of generated and real images,
            :class:`~cascadezoo.MetricFeatures`, or the ``cascade`` with its images and the data,
            :class:`~cascadezoo.MetricCascade`.
        real: how many features of real images it receives: ``as-many`` as generated ones, or
            ``all`` of the split.
        needs_data: whether the metric uses real images. A metric that does not can be measured
            without the model's data.
        extractor: whether the metric uses the feature extractor that the spec names. A build loads
            the extractor only if one of its metrics does.
        title: the display name; empty uses the name.
        better: which values are better: ``lower``, ``higher``, or None for neither.
        scale: the factor for displayed values, for example 1000 for KID.
    """

    what: ClassVar[str] = "metric"

    takes: Literal["features", "cascade"] = "features"
    real: Literal["as-many", "all"] = "as-many"
    needs_data: bool = True
    extractor: bool = True
    title: str = ""
    better: Literal["lower", "higher"] | None = None
    scale: float = 1.0

    def __post_init__(self) -> None:
        super(MetricEntry, self).__post_init__()
        for label, value, known in (
            ("takes", self.takes, ("features", "cascade")),
            ("real", self.real, ("as-many", "all")),
            ("better", self.better, ("lower", "higher", None)),
        ):
            if value not in known:
                shown = ", ".join(map(repr, known))
                raise ValueError(f"metric {self.name!r}: {label}={value!r} is not one of {shown}")
        if self.takes == "features" and not self.extractor:
            raise ValueError(
                f"metric {self.name!r}: takes='features' needs an extractor, so extractor=False "
                "is not possible"
            )
        if not 0 < self.scale < float("inf"):
            raise ValueError(f"metric {self.name!r}: scale={self.scale!r} is not above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class ZooEntry(Entry):
    """A zoo. ``impl`` is ``load() -> dict`` in the form of ``zoo_manifest.json``.

    Args:
        folder: the folder inside the distribution that contains the bundled models, each under its
            name: the package and its subfolders, e.g. ``cascadezoo_models/models``. Empty if all
            models are on the Hub.

    Raises:
        ValueError: the folder is malformed.
    """

    what: ClassVar[str] = "zoo"

    folder: str = ""

    def __post_init__(self) -> None:
        super(ZooEntry, self).__post_init__()
        if self.folder and not re.fullmatch(_FOLDER, self.folder):
            raise ValueError(
                f"zoo {self.name!r}: folder={self.folder!r} does not have the form 'package/folder'"
            )

    def models_folder(self) -> Path | None:
        """The folder of the bundled models; None without bundled models, or inside an archive."""
        if not self.folder:
            return None
        from importlib import resources  # slow: not needed to list kinds

        package, *rest = self.folder.split("/")
        folder = resources.files(package).joinpath(*rest)
        return folder if isinstance(folder, Path) else None


class SpecEntry(Entry):
    """A spec that commands accept by name.

    ``impl`` is ``package:file.json``, a file of that package. ``summary`` is shown if the spec has
    no description.
    """

    __slots__ = ()
    what: ClassVar[str] = "spec"

    def load(self) -> bytes:
        """Read the file.

        Raises:
            PluginError: the package cannot be imported, or the file cannot be read.
        """
        from importlib import resources

        package, _, file = self.impl.partition(":")
        try:
            return resources.files(package).joinpath(file).read_bytes()
        except Exception as error:
            raise PluginError(
                f"spec {self.name!r} cannot be read from {self.impl}: "
                f"{type(error).__name__}: {error}",
                hint=_UPGRADE,
                code="plugin-spec-unreadable",
                name=self.name,
            ) from error


class CommandEntry(Entry):
    """A command ``cascadezoo NAME``. ``impl`` is a :class:`click.Command`, imported when called.

    A command cannot replace a built-in command. ``summary`` is its line in ``cascadezoo --help``.
    """

    __slots__ = ()
    what: ClassVar[str] = "command"


class CallbackEntry(Entry):
    """A receiver of training events. ``impl(config, run)`` returns a ``Callback``.

    ``run`` is a :class:`~cascadezoo.TrainingRun`.
    """

    __slots__ = ()
    what: ClassVar[str] = "callback"


class Origin(NamedTuple):
    """The distribution and the entry point that registered an entry."""

    distribution: str
    version: str
    plugin: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"


E = TypeVar("E", bound=Entry)


class Registered(NamedTuple, Generic[E]):
    """An entry and its origin."""

    entry: E
    origin: Origin


class Table(Generic[E]):
    """All entries of one type, by name.

    A name that two plugins claim belongs to neither. A name of cascadezoo belongs to cascadezoo.

    Args:
        what: the name of the type in messages.
        install_hint: the end of the hint for an unknown name.
        unusable: installed distributions whose entries may be missing, and the reason.

    Attributes:
        rows: the entries by name.
        contested: the names that several plugins claim, and those plugins.
        refused: unusable entries, each with an error message and a hint.
    """

    def __init__(self, what: str, install_hint: str, unusable: dict[str, str]) -> None:
        self.what = what
        self.install_hint = install_hint
        self.rows: dict[str, Registered[E]] = {}
        self.contested: dict[str, list[Origin]] = {}
        self.refused: dict[str, tuple[str, str]] = {}
        self.unusable = unusable

    def add(self, entry: E, origin: Origin) -> tuple[str, str, list[Origin]] | None:
        """Register an entry.

        Returns:
            None, or for a taken name the code and message of the fault, and the plugins at fault.
        """
        name = entry.name
        holders = list(self.contested.get(name, ()))
        if name in self.rows:
            holders.append(self.rows[name].origin)
        if not holders:
            self.rows[name] = Registered(entry, origin)
            return None
        if any(map(is_builtin, holders)):  # the host adds its entries first
            message = f"{self.what} {name!r} is built in; a plugin cannot replace it"
            return "name-reserved", f"{message}: choose another name", [origin]
        at_fault = [origin] if name in self.contested else [*holders, origin]
        self.rows.pop(name, None)
        self.contested[name] = [*holders, origin]
        return "name-claimed", self._contest(name), at_fault

    def __iter__(self) -> Iterator[Registered[E]]:
        return iter(sorted(self.rows.values(), key=lambda row: _natural(row.entry.name)))

    def names(self, pattern: str = "*") -> list[str]:
        """Registered names that match a glob, sorted."""
        return [r.entry.name for r in self if fnmatch.fnmatchcase(r.entry.name, pattern)]

    def resolve(self, name: str) -> str:
        """The full name: ``diffusion`` becomes the newest ``diffusion.vN``.

        Only versions of one distribution count: cascadezoo's, or that of the oldest version. So
        ``diffusion`` never means the code of somebody who registers ``diffusion.v99``.

        Raises:
            UnknownNameError: the name is not registered.
            PluginError: two plugins claim it, or its plugin is for another API level.
        """
        if name in self.rows:
            return name
        if name in self.contested:
            raise PluginError(
                self._contest(name),
                hint="uninstall one of them, or limit CASCADEZOO_LOAD_PLUGINS to the other",
                code="plugin-contested",
                kind=self.what,
                name=name,
            )
        if name in self.refused:
            what, hint = self.refused[name]
            raise PluginError(what, hint=hint, code="plugin-unusable", kind=self.what, name=name)
        for known in ((*self.rows, *self.contested), (*self.refused,)):
            versions = [k for k in known if k.rpartition(".v")[0] == name]
            if versions:
                return self.resolve(self._newest(versions))
        raise UnknownNameError(
            f"unknown {self.what} {name!r}", hint=self._nearest(name), kind=self.what, name=name
        )

    def _newest(self, versions: list[str]) -> str:
        """The newest version of the distribution that a name without a version refers to."""
        holders = {name: self._holders(name) for name in versions}
        first = min(versions, key=_natural)
        own = next((v for v in versions if BUILTIN_DISTRIBUTION in holders[v]), first)
        same = [v for v in versions if v == own or holders[v] & holders[own]]
        return max(same, key=_natural)

    def holders(self, name: str) -> list[str]:
        """The plugins that provide a name or a version of it, or that the index lists with it."""
        known = [*self.rows, *self.contested]
        same = [k for k in known if name in (k, k.rpartition(".v")[0])]
        origins = [self.rows[k].origin for k in same if k in self.rows]
        origins += [origin for k in same for origin in self.contested.get(k, ())]
        elsewhere = self._indexed(name)
        return [*map(str, origins), *([] if elsewhere is None else [elsewhere.name])]

    def _holders(self, name: str) -> set[str]:
        """The distributions that claim a name."""
        origins = list(self.contested.get(name, ()))
        if name in self.rows:
            origins.append(self.rows[name].origin)
        return {canonical_name(origin.distribution) for origin in origins}

    def get(self, name: str) -> Registered[E]:
        """The entry of that name, or its newest version. Warns if it is deprecated.

        Raises:
            UnknownNameError: the name is not registered.
            PluginError: two plugins claim it, or its plugin is for another API level.
        """
        row = self.rows[self.resolve(name)]
        if row.entry.deprecated is not None:
            deprecated(f"{self.what} {row.entry.name!r}", row.entry.deprecated)
        return row

    def _indexed(self, name: str) -> IndexedPlugin | None:
        """The plugin of the index that registers a stage kind, given without its version."""
        if self.what != "stage kind":
            return None
        from cascadezoo.plugins.index import provider_of  # only for names that are not found

        return provider_of(name)

    def _contest(self, name: str) -> str:
        origins = " and ".join(f"{o.distribution} {o.version}" for o in self.contested[name])
        return f"{self.what} {name!r} is claimed by {origins}; neither is used"

    def _nearest(self, name: str) -> str:
        stem = name.rpartition(".v")[0] or name
        versions = [k for k in self.rows if k.rpartition(".v")[0] == stem]
        close = versions or difflib.get_close_matches(name, list(self.rows), n=3, cutoff=0.6)
        if not close:
            stems = {k.rpartition(".v")[0] or k: k for k in self.rows}
            matches = difflib.get_close_matches(stem, list(stems), n=3, cutoff=0.6)
            close = [stems[s] for s in matches]
        known = self._indexed(stem)
        if known is not None and known.name not in self.unusable and not versions:
            return f"the plugin {known.name} provides it: pip install {known.name} ({known.url})"
        guess = f"did you mean {' or '.join(repr(c) for c in close)}? " if close else ""
        if self.unusable and not versions:
            rows = "; ".join(f"{name} {why}" for name, why in sorted(self.unusable.items()))
            return f"{guess}An installed plugin that is not in use may provide it: {rows}"
        return f"{guess}{self.install_hint}"


_INSTALL = "A plugin may provide it: pip install DISTRIBUTION"


class Registry:
    """The entries of the installed plugins: one :class:`Table` per type."""

    def __init__(self) -> None:
        self.unusable: dict[str, str] = {}
        self.stages: Table[StageEntry] = self._table("stage kind", "cascadezoo stages list")
        self.datasets: Table[DataEntry] = self._table("dataset")
        self.losses: Table[LossEntry] = self._table("loss")
        self.metrics: Table[MetricEntry] = self._table("metric")
        self.features: Table[FeatureEntry] = self._table("feature extractor")
        self.zoos: Table[ZooEntry] = self._table("zoo")
        self.specs: Table[SpecEntry] = self._table("spec", "cascadezoo specs list")
        self.commands: Table[CommandEntry] = self._table("command")
        self.callbacks: Table[CallbackEntry] = self._table("callback")

    def tables(self) -> list[Table[Any]]:
        """All tables."""
        return [table for table in vars(self).values() if isinstance(table, Table)]

    def _table(self, what: str, command: str | None = None) -> Table[Any]:
        shown = "" if command is None else f"; {command} shows the installed ones"
        return Table(what, f"{_INSTALL}{shown}", self.unusable)


def is_builtin(origin: Origin) -> bool:
    """Whether an origin is cascadezoo itself."""
    return canonical_name(origin.distribution) == BUILTIN_DISTRIBUTION


def _natural(name: str) -> tuple[str, int]:
    stem, _, version = name.rpartition(".v")
    return (stem, int(version)) if stem and version.isdecimal() else (name, 0)


def _load(target: str, entry: Entry) -> Any:
    module, _, attribute = target.partition(":")
    try:
        # What a module prints when it is imported would break the output of --json.
        with contextlib.redirect_stdout(sys.stderr):
            return getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            raise
        place = blame(error, module.partition(".")[0], own_only=True)
        raise PluginError(
            f"{entry.what} {entry.name!r} cannot be imported from {target}: "
            f"{type(error).__name__}: {error}{f' [{place}]' if place else ''}",
            hint=_UPGRADE,
            code="plugin-import-failed",
            kind=entry.what,
            name=entry.name,
            where=place,
        ) from error
