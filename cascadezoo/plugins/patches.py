"""Detects plugins that replace functions and methods of cascadezoo."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from typing import Any

from cascadezoo.plugins.registry import BUILTIN_DISTRIBUTION

__all__ = ["patches"]


def patches(packages: Collection[str]) -> dict[str, list[str]]:
    """The names in cascadezoo's modules and classes that hold code of other packages.

    Args:
        packages: top-level packages, none of them cascadezoo's.

    Returns:
        For each package that replaces something, names such as
        ``cascadezoo.stages.base.Stage.sample``, sorted.
    """
    found: dict[str, list[str]] = {}
    for name, package in _members():
        if package in packages:
            found.setdefault(package, []).append(name)
    return {package: sorted(names) for package, names in found.items()}


def _members() -> Iterator[tuple[str, str]]:
    """The name of each function and class in cascadezoo's modules, and its package."""
    for name, module in list(sys.modules.items()):
        if module is None or name.partition(".")[0] != BUILTIN_DISTRIBUTION:
            continue
        for key, value in list(vars(module).items()):
            yield f"{name}.{key}", _package(value)
            if isinstance(value, type) and value.__module__ == name:
                for attribute, member in list(vars(value).items()):
                    if attribute != "__module__":
                        yield f"{name}.{key}.{attribute}", _package(member)


def _package(value: Any) -> str:
    """The top-level package in which a function or class is defined; empty for data."""
    if isinstance(value, property):
        value = value.fget
    value = getattr(value, "__func__", value)  # static and class methods
    value = getattr(value, "func", value) if type(value).__name__ == "partial" else value
    if not callable(value):
        return ""
    return str(getattr(value, "__module__", "")).partition(".")[0]
