"""The models that cascadezoo and the installed plugins list, by name."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path

from cascadezoo.errors import (
    CascadezooError,
    InputError,
    ModelError,
    PluginError,
    UnknownNameError,
)
from cascadezoo.plugins.faults import Owner
from cascadezoo.plugins.manager import BUILTIN_DISTRIBUTION, get_registry
from cascadezoo.plugins.registry import Origin, Registered, ZooEntry
from cascadezoo.zoo.manifest import (
    Manifest,
    ZooModel,
    parse_manifest,
    read_manifest_file,
)

__all__ = [
    "ListedModel",
    "Zoos",
    "bundled_folder",
    "default_model",
    "entries_to_verify",
    "find",
    "get_zoos",
]


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model and the zoo that lists it."""

    model: ZooModel
    zoo: str
    origin: Origin
    folder: Path | None = None
    """The folder of the zoo's bundled models."""

    def __str__(self) -> str:
        return f"the zoo {self.zoo!r} of {self.origin}"


@dataclass
class Zoos:
    """The models of all zoos, by name."""

    models: dict[str, ListedModel] = field(default_factory=dict)
    contested: dict[str, list[ListedModel]] = field(default_factory=dict)
    """The names that several zoos claim; none of these models is used."""
    defaults: dict[str, set[str]] = field(default_factory=dict)
    """The models that zoos name for commands without a model, by command."""
    faults: list[str] = field(default_factory=list)
    """The errors of zoos that cannot be read, and of contested names."""

    @classmethod
    def load(cls, rows: Iterable[Registered[ZooEntry]]) -> Zoos:
        """Read registered zoos. A zoo that cannot be read does not affect the others."""
        zoos = cls()
        for row in rows:
            try:
                manifest = _read(row)
            except CascadezooError as error:
                zoos.faults.append(error.what)
                continue
            for task, name in manifest.defaults.items():
                zoos.defaults.setdefault(task, set()).add(name)
            for model in manifest.models:
                zoos._add(ListedModel(model, row.entry.name, row.origin, row.entry.models_folder()))
        zoos.faults += [zoos._contest_message(name) for name in sorted(zoos.contested)]
        return zoos

    def _add(self, listed: ListedModel) -> None:
        name = listed.model.name
        if name in self.contested:
            self.contested[name].append(listed)
        elif name in self.models:
            self.contested[name] = [self.models.pop(name), listed]
        else:
            self.models[name] = listed

    def get(self, name: str) -> ListedModel:
        """The model of that name.

        Raises:
            UnknownNameError: no zoo lists it.
            PluginError: several zoos claim it.
        """
        if name in self.contested:
            raise PluginError(
                self._contest_message(name),
                hint="uninstall one plugin, or limit CASCADEZOO_LOAD_PLUGINS to the other",
                code="plugin-zoo-contested",
                name=name,
            )
        if name in self.models:
            return self.models[name]
        close = difflib.get_close_matches(name, list(self.models), n=3, cutoff=0.6)
        guess = f"did you mean {' or '.join(repr(c) for c in close)}? " if close else ""
        faults = f" ({'; '.join(self.faults)})" if self.faults else ""
        raise UnknownNameError(
            f"no zoo lists a model {name!r}{faults}",
            hint=f"{guess}cascadezoo zoo list shows all; cascadezoo zoo search TEXT searches the "
            "Hub",
            code="lookup-zoo-model",
            name=name,
        )

    def matching(self, pattern: str = "*") -> list[ListedModel]:
        """The models whose names match a glob pattern, sorted by name."""
        return [self.models[n] for n in sorted(self.models) if fnmatch.fnmatchcase(n, pattern)]

    def of_repo(self, repo: str) -> list[str]:
        """The names of the models in a repo."""
        return sorted(name for name, row in self.models.items() if row.model.repo == repo)

    def _contest_message(self, name: str) -> str:
        claims = " and ".join(str(listed) for listed in self.contested[name])
        return f"the zoo model {name!r} is claimed by {claims}; neither is used"


def _read(row: Registered[ZooEntry]) -> Manifest:
    load = row.entry.load()
    where = f"the zoo {row.entry.name!r} of {row.origin}"
    with Owner.of(row).guard("to be read", load):
        data = load()
    manifest = parse_manifest(data, where)
    bundled = [model.name for model in manifest.models if model.bundled]
    if bundled and not row.entry.folder:
        raise PluginError(
            f"{where} lists {bundled[0]!r} as bundled, but its ZooEntry has no folder",
            hint="set ZooEntry(folder='package/folder'), or give the model a repo and a commit",
            code="plugin-zoo-bundled",
            name=bundled[0],
        )
    return manifest


@cache
def get_zoos() -> Zoos:
    """The zoos of cascadezoo and the installed plugins, read once per process."""
    return Zoos.load(get_registry().zoos)


def find(name: str) -> ZooModel:
    """The listed model of that name.

    Raises:
        UnknownNameError: no zoo lists it.
        PluginError: several zoos claim it.
    """
    return get_zoos().get(name).model


def default_model(command: str) -> str | None:
    """The zoo model that a command uses if the user gives none; None if no zoo names one.

    Raises:
        InputError: zoos name different models.
    """
    names = sorted(get_zoos().defaults.get(command, ()))
    if len(names) > 1:
        raise InputError(
            f"zoos name different models for {command}: {', '.join(names)}",
            hint=f"choose one: --model {names[0]}",
            code="input-model-ambiguous",
            names=names,
        )
    return names[0] if names else None


def bundled_folder(model: ZooModel) -> Path | None:
    """The folder of a bundled model in its installed distribution; None for a model on the Hub.

    Raises:
        ModelError: the model is bundled, but its folder is missing.
    """
    if not model.bundled:
        return None
    listed = get_zoos().models.get(model.name)
    distribution = BUILTIN_DISTRIBUTION
    base = resources.files("cascadezoo").joinpath("zoo", "models")
    if listed is not None and listed.folder is not None:
        distribution, base = listed.origin.distribution, listed.folder
    folder = base.joinpath(model.name)
    if isinstance(folder, Path) and folder.is_dir():
        return folder
    raise ModelError(
        f"{model.name} is bundled with {distribution}, but {folder} does not exist",
        hint=f"pip install --force-reinstall --no-deps {distribution}",
        code="model-bundled-missing",
        name=model.name,
        path=folder,
    )


def entries_to_verify(name: str | None, path: Path | None) -> tuple[list[ZooModel], list[str]]:
    """Select the entries to verify.

    Args:
        name: a model of the zoo; None selects all.
        path: a manifest file; None takes the installed zoos.

    Returns:
        The entries, and the faults of installed zoos.

    Raises:
        UnknownNameError: no model of that name is listed.
        InputError: the file does not exist or is not a manifest.
    """
    if path is None:
        zoos = get_zoos()
        if name is not None:
            return [zoos.get(name).model], []
        return [row.model for row in zoos.matching()], zoos.faults
    manifest = read_manifest_file(path)
    if manifest is None:
        raise InputError(
            f"file {path} not found",
            hint="create it with cascadezoo zoo add REF",
            code="input-no-file",
            path=path,
        )
    models = [m for m in manifest.models if name in (None, m.name)]
    if name is not None and not models:
        listed = ", ".join(m.name for m in manifest.models) or "none"
        raise UnknownNameError(
            f"{path} lists no model {name!r}",
            hint=f"it lists: {listed}",
            code="lookup-zoo-model",
            path=path,
            name=name,
        )
    return models, []
