"""The index of plugins: a curated file of the package, ``plugin_index.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata, resources
from typing import Any

from cascadezoo.plugins.names import canonical_name

__all__ = ["IndexedPlugin", "indexed", "provider_of", "read_index", "search_index"]

_FILE = "plugin_index.json"


@dataclass(frozen=True, slots=True)
class IndexedPlugin:
    """A plugin of the index.

    Args:
        name: the name of its distribution.
        description: what it is, in one line.
        url: the address of its project.
        registers: the names that it registers, by type, as ``plugins list`` shows them.
        versions: its published versions, oldest first.
        requires: the versions of cascadezoo that it needs, as a requirement of pip.
    """

    name: str
    description: str
    url: str
    registers: Mapping[str, tuple[str, ...]]
    versions: tuple[str, ...]
    requires: str

    @property
    def installed(self) -> str | None:
        """The installed version; None if it is not installed."""
        try:
            return metadata.version(self.name)
        except metadata.PackageNotFoundError:
            return None

    def matches(self, query: str) -> bool:
        """Whether each word of a query is part of the name, the description or an entry."""
        names = [f"{what} {name}" for what, rows in self.registers.items() for name in rows]
        text = " ".join((self.name, self.description, *names)).casefold()
        return all(word in text for word in query.casefold().split())

    def to_dict(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {**asdict(self), "installed": self.installed}


@cache
def read_index() -> tuple[IndexedPlugin, ...]:
    """The plugins of the index, sorted by name."""
    text = resources.files("cascadezoo.plugins").joinpath(_FILE).read_text(encoding="utf-8")
    rows = json.loads(text)["plugins"]
    plugins = [
        IndexedPlugin(
            name=row["name"],
            description=row["description"],
            url=row["url"],
            registers={what: tuple(names) for what, names in row["registers"].items()},
            versions=tuple(row["versions"]),
            requires=row["requires"],
        )
        for row in rows
    ]
    return tuple(sorted(plugins, key=lambda plugin: plugin.name))


def search_index(query: str = "") -> list[IndexedPlugin]:
    """The plugins that match a query.

    Args:
        query: words; each must be part of the name, the description or the name of an entry,
            in upper or lower case. Empty matches all.
    """
    return [plugin for plugin in read_index() if plugin.matches(query)]


def indexed(name: str) -> IndexedPlugin | None:
    """The plugin of that distribution; None if it is not in the index."""
    wanted = canonical_name(name)
    return next((p for p in read_index() if canonical_name(p.name) == wanted), None)


def provider_of(kind: str) -> IndexedPlugin | None:
    """The plugin that registers a stage kind; the kind may be without its version."""
    for plugin in read_index():
        for name in plugin.registers.get("stage kind", ()):
            if kind in (name, name.rpartition(".v")[0]):
                return plugin
    return None
