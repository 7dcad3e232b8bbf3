"""Detects imports of heavy packages such as torch, which cost every command seconds."""

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
"""Packages that a plugin's module and the modules of its configs must not import."""


class HeavyImport(NamedTuple):
    """A heavy package, and the file and line that imported it."""

    package: str
    where: str | None


class _Watch(MetaPathFinder):
    def __init__(self, package: str, refuse: bool) -> None:
        self.package = package
        self.refuse = refuse
        self.imports: list[HeavyImport] = []

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in HEAVY:
            return None
        self.imports.append(HeavyImport(fullname, _importer(sys._getframe(1), self.package)))
        if self.refuse:
            raise ImportError(f"{fullname} must not be imported here")
        return None


@contextmanager
def watch_imports(package: str, *, refuse: bool = False) -> Iterator[list[HeavyImport]]:
    """Record the first import of each package of :data:`HEAVY`.

    Args:
        package: the package whose line to report if several modules import each other.
        refuse: fail such an import with an ImportError.
    """
    watch = _Watch(package, refuse)
    sys.meta_path.insert(0, watch)
    try:
        yield watch.imports
    finally:
        sys.meta_path.remove(watch)


def _importer(frame: FrameType | None, package: str) -> str | None:
    """The innermost line of the package in the call stack, else the innermost line of all."""
    nearest = None
    while frame is not None:
        file = frame.f_code.co_filename
        if not is_import_machinery(file) and file != __file__:
            line = f"{file}:{frame.f_lineno}"
            if str(frame.f_globals.get("__name__", "")).partition(".")[0] == package:
                return line
            nearest = nearest or line
        frame = frame.f_back
    return nearest


def is_import_machinery(file: str) -> bool:
    """Whether a file belongs to Python's import machinery, which is never reported."""
    return file.startswith("<frozen importlib") or f"{os.sep}importlib{os.sep}" in file
