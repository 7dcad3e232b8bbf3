"""What a plugin needs of cascadezoo, read before the plugin is imported."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from functools import cache
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path
from typing import NamedTuple

from cascadezoo._version import __version__
from cascadezoo.plugins.registry import API_LEVEL, BUILTIN_DISTRIBUTION

__all__ = [
    "LEVEL_NAME",
    "UPGRADE",
    "Misfit",
    "level_misfit",
    "metadata_of",
    "missing_name",
    "stated_level",
    "version_misfit",
]

LEVEL_NAME = "CASCADEZOO_API"
"""The name in a plugin that states the level of the plugin contract that it was written for."""

_LEVEL_LINE = re.compile(rf"^{LEVEL_NAME}\s*(?::[^=]*)?=\s*(\d+)\s*(?:#.*)?$")
UPGRADE = f"pip install --upgrade {BUILTIN_DISTRIBUTION}"


class Misfit(NamedTuple):
    """A plugin that is for another cascadezoo: the code, the message, the advice and the line."""

    code: str
    message: str
    hint: str
    where: str | None = None


@cache
def metadata_of(distribution: Distribution) -> Mapping[str, list[str]]:
    """The headers of a distribution's metadata, by their names.

    ``importlib.metadata`` parses them as an email, on every access; that takes longer than loading
    a plugin.
    """
    text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    headers: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(": ")
        if not line:
            break
        if colon and name and not name[0].isspace():
            headers.setdefault(name, []).append(value.strip())
    return headers


def version_misfit(point: EntryPoint) -> Misfit | None:
    """The misfit of the version that ``Requires-Dist`` of a plugin's metadata requires, if any."""
    if point.dist is None:
        return None
    name = re.compile(rf"{BUILTIN_DISTRIBUTION}(?![\w.-])", re.IGNORECASE)
    stated = metadata_of(point.dist).get("Requires-Dist", [])
    rows = [row for row in stated if name.match(row)]
    for row in rows:
        from packaging.requirements import InvalidRequirement, Requirement
        from packaging.version import Version

        try:
            requirement = Requirement(row)
        except InvalidRequirement:
            continue
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        # A development version counts as the release that it becomes.
        known = (__version__, Version(__version__).base_version)
        if any(requirement.specifier.contains(v, prereleases=True) for v in known):
            continue
        message = f"needs {BUILTIN_DISTRIBUTION}{requirement.specifier}; this is {__version__}"
        lowest = [Version(s.version) for s in requirement.specifier if s.operator in (">=", ">")]
        newer = any(version >= Version(__version__) for version in lowest)
        hint = UPGRADE if newer else f"pip install --upgrade {point.dist.name}"
        return Misfit("requires-other-version", message, hint)
    return None


def stated_level(point: EntryPoint) -> tuple[int, str] | None:
    """The level that a plugin's module states in its source, and file and line; None without one.

    The source is read, not imported: a plugin for a later level may import names that this version
    does not have.
    """
    module = point.value.partition(":")[0].strip()
    file = _installed(point, module) or _source(module)
    if file is None:
        return None
    try:
        content = file.read_bytes()
        # Nearly all plugins state none.
        text = content.decode() if LEVEL_NAME.encode() in content else ""
    except (OSError, UnicodeDecodeError):
        return None
    for number, line in enumerate(text.splitlines(), 1):
        match = _LEVEL_LINE.match(line)
        if match is not None:
            return int(match[1]), f"{file}:{number}"
    return None


def level_misfit(what: str, level: object, distribution: str, where: str | None = None) -> Misfit:
    """The misfit of another API level.

    Args:
        what: the plugin or entry, for the message.
        level: the level that it was written for.
        distribution: its distribution.
        where: the line that states the level.
    """
    message = f"{what} needs API level {level!r}; this cascadezoo has level {API_LEVEL}"
    newer = isinstance(level, int) and level > API_LEVEL
    hint = UPGRADE if newer else f"pip install --upgrade {distribution}"
    return Misfit("api-level", message, hint, where)


def missing_name(error: BaseException) -> str | None:
    """The advice for an error that means that a plugin needs another version of cascadezoo."""
    if isinstance(error, ImportError) and (error.name or "").partition(".")[0] == "cascadezoo":
        return f"the plugin may be for a newer cascadezoo: {UPGRADE}"
    return None


def _installed(point: EntryPoint, module: str) -> Path | None:
    """The file of a top-level package beside its metadata, which needs no search."""
    if point.dist is None or not module.isidentifier():
        return None
    file = Path(str(point.dist.locate_file(f"{module}/__init__.py")))
    return file if file.is_file() else None


def _source(module: str) -> Path | None:
    """The file of a module, found without importing anything."""
    top, *parts = module.split(".")
    try:
        spec = importlib.util.find_spec(top) if top else None
    except (ImportError, ValueError, AttributeError):
        return None
    if spec is None:
        return None
    if not parts:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for folder in spec.submodule_search_locations or ():
        place = Path(folder, *parts)
        for file in (place.with_suffix(".py"), place / "__init__.py"):
            if file.is_file():
                return file
    return None
