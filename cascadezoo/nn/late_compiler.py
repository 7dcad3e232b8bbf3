"""PyTorch's compiler is imported when something is compiled, and not by the first optimizer.

The import takes seconds. PyTorch excludes some of its functions from compilation, among them those
of optimizers and of the meta device, and imports the compiler for that when one of them is called.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

from torch._compile import _disable_dynamo

__all__ = ["import_compiler_late", "trace_without_compiler"]

# What torch._disable_dynamo makes of each function, and the attribute that this reads and sets.
_WRAPPER = _disable_dynamo(lambda: None).__code__
_EXCLUDED = "__dynamo_disable"


def import_compiler_late(*functions: Callable[..., Any]) -> None:
    """Let functions run without the compiler, as long as it is not imported.

    Nothing is compiled without it. Once it is imported, the functions are excluded from compilation
    as before.

    Args:
        functions: functions that PyTorch excludes from compilation; others do not change.
    """
    for function in functions:
        if getattr(function, "__code__", None) is _WRAPPER:
            original = inspect.getclosurevars(function).nonlocals.get("fn")
            if original is not None and not hasattr(original, _EXCLUDED):
                setattr(original, _EXCLUDED, _plainly(function, original))


@functools.cache
def trace_without_compiler() -> None:
    """Let operations on the meta device run without the compiler, as long as it is not imported."""
    import_compiler_late(*_meta_functions())


def _meta_functions() -> Iterator[Callable[..., Any]]:
    tables = importlib.import_module("torch._decomp").global_decomposition_table.values()
    found: list[Any] = [function for table in tables for function in table.values()]
    found += vars(importlib.import_module("torch._refs")).values()
    seen = set()
    while found:
        function = found.pop()
        if isinstance(function, FunctionType) and function not in seen:
            seen.add(function)
            yield function
            # What it wraps.
            found += inspect.getclosurevars(function).nonlocals.values()


def _plainly(function: Callable[..., Any], original: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if "torch._dynamo" not in sys.modules:
            return original(*args, **kwargs)
        if getattr(original, _EXCLUDED, None) is call:
            delattr(original, _EXCLUDED)
        return function(*args, **kwargs)

    return call
