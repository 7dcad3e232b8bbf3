"""Detects plugins that replace functions and methods of cascadezoo."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from cascadezoo.plugins.registry import BUILTIN_DISTRIBUTION

__all__ = ["patches"]


def patches(package: str) -> list[str]:
    """The names in cascadezoo's modules and classes that hold code of another package.

    Args:
        package: the top-level package, which is not cascadezoo's.

    Returns:
        Names such as ``cascadezoo.stages.base.Stage.sample``, sorted.
    """
    return sorted(_patched(package))


def _patched(package: str) -> Iterator[str]:
    for name, module in list(sys.modules.items()):
        if module is None or name.partition(".")[0] != BUILTIN_DISTRIBUTION:
            continue
        for key, value in list(vars(module).items()):
            if _package(value) == package:
                yield f"{name}.{key}"
            elif isinstance(value, type) and value.__module__ == name:
                for attribute, member in list(vars(value).items()):
                    if attribute != "__module__" and _package(member) == package:
                        yield f"{name}.{key}.{attribute}"


def _package(value: Any) -> str:
    """The top-level package in which a function or class is defined; empty for data."""
    if isinstance(value, property):
        value = value.fget
    value = getattr(value, "__func__", value)  # static and class methods
    value = getattr(value, "func", value) if type(value).__name__ == "partial" else value
    if not callable(value):
        return ""
    return str(getattr(value, "__module__", "")).partition(".")[0]
