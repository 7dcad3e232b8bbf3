"""Watches what is imported, so that who imports torch where it costs everyone seconds is named."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import FrameType, ModuleType
from typing import NamedTuple

__all__ = ["HEAVY", "HeavyImport", "is_import_machinery", "watch_imports"]

HEAVY = frozenset(
    {"accelerate", "lpips", "numpy", "timm", "torch", "torchmetrics", "torchvision", "transformers"}
)
"""What neither a plugin's own module nor the modules of its configs may import."""


class HeavyImport(NamedTuple):
    """A heavy package, and the file and line that imported it."""

    package: str
    where: str | None


class _Watch(MetaPathFinder):
    def __init__(self, package: str, refuse: bool) -> None:
        self.package = package
        self.refuse = refuse
        self.found: list[HeavyImport] = []

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in HEAVY:
            return None
        self.found.append(HeavyImport(fullname, _importer(sys._getframe(1), self.package)))
        if self.refuse:
            raise ImportError(f"{fullname} must not be imported here")
        return None


@contextmanager
def watch_imports(package: str, *, refuse: bool = False) -> Iterator[list[HeavyImport]]:
    """Note each package of :data:`HEAVY` that is imported for the first time.

    Args:
        package: whose line is told where several modules import each other.
        refuse: let such an import fail with an ImportError.
    """
    watch = _Watch(package, refuse)
    sys.meta_path.insert(0, watch)
    try:
        yield watch.found
    finally:
        sys.meta_path.remove(watch)


def _importer(frame: FrameType | None, package: str) -> str | None:
    """The innermost line of the package that led here; else the innermost of anybody."""
    nearest = None
    while frame is not None:
        file = frame.f_code.co_filename
        if not is_import_machinery(file) and file != __file__:
            place = f"{file}:{frame.f_lineno}"
            if str(frame.f_globals.get("__name__", "")).partition(".")[0] == package:
                return place
            nearest = nearest or place
        frame = frame.f_back
    return nearest


def is_import_machinery(file: str) -> bool:
    """Whether a frame of that file is Python's own importing, which nobody is to blame for."""
    return file.startswith("<frozen importlib") or f"{os.sep}importlib{os.sep}" in file
