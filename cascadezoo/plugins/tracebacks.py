"""Finds the line of a plugin that is to blame for an exception."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Iterator
from typing import Any

from cascadezoo.plugins.import_guard import is_import_machinery

__all__ = ["blame", "definition", "own_definition"]

_OWN = "cascadezoo"


def blame(error: BaseException, package: str, *, own_only: bool = False) -> str | None:
    """The deepest line of the plugin in a traceback; for a syntax error, the line that it names.

    Args:
        error: the exception.
        package: the top-level package of the plugin.
        own_only: never name a line of another package.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    lines = list(_frames(error))
    own = (line for line, top in lines if top == package)
    if own_only:
        return next(own, None)
    # Lines of cascadezoo are never to blame.
    others = (line for line, top in lines if top != _OWN)
    return next(own, None) or next(others, None)


def _frames(error: BaseException) -> Iterator[tuple[str, str]]:
    """File and line, and top-level package, of each frame, from the deepest outwards."""
    rows = list(traceback.walk_tb(error.__traceback__))
    for frame, line in reversed(rows):
        file = frame.f_code.co_filename
        if not is_import_machinery(file):
            yield f"{file}:{line}", str(frame.f_globals.get("__name__", "")).partition(".")[0]


def definition(function: Any) -> str | None:
    """File and line of a function; None if it has no Python code."""
    code = getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None
    return None if code is None else f"{code.co_filename}:{code.co_firstlineno}"


def own_definition(function: Any) -> str | None:
    """File and line of a function of a plugin; None for one of cascadezoo's own base classes."""
    if function is None:
        return None
    module = str(getattr(inspect.unwrap(function), "__module__", ""))
    return None if module.partition(".")[0] == _OWN else definition(function)
