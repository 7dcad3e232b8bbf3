"""Detects plugins that replace functions and methods of cascadezoo."""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import Any

from cascadezoo.plugins.registry import BUILTIN_DISTRIBUTION

__all__ = ["patches"]

_OWN = f"{BUILTIN_DISTRIBUTION}."


def patches(packages: Collection[str]) -> dict[str, list[str]]:
    """The names in cascadezoo's modules and classes that hold code of other packages.

    Args:
        packages: top-level packages, none of them cascadezoo's.

    Returns:
        For each package that replaces something, names such as
        ``cascadezoo.stages.base.Stage.sample``, sorted.
    """
    found: dict[str, list[str]] = {}
    if not packages:
        return found
    for name, module in list(sys.modules.items()):
        if module is None or name.partition(".")[0] != BUILTIN_DISTRIBUTION:
            continue
        for key, value in list(vars(module).items()):
            if (package := _package(value)) in packages:
                found.setdefault(package, []).append(f"{name}.{key}")
            if isinstance(value, type) and value.__module__ == name:
                for attribute, member in list(vars(value).items()):
                    if attribute != "__module__" and (package := _package(member)) in packages:
                        found.setdefault(package, []).append(f"{name}.{key}.{attribute}")
    return {package: sorted(names) for package, names in found.items()}


def _package(value: Any) -> str:
    """The top-level package in which a function or class is defined; empty for data."""
    module = getattr(value, "__module__", None)
    if type(module) is str and module.startswith(_OWN):
        return BUILTIN_DISTRIBUTION  # nearly all are
    if isinstance(value, property):
        value = value.fget
    value = getattr(value, "__func__", value)  # static and class methods
    value = getattr(value, "func", value) if type(value).__name__ == "partial" else value
    if not callable(value):
        return ""
    return str(getattr(value, "__module__", "")).partition(".")[0]
