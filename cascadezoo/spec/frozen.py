"""Read-only dicts and lists, which the fields of specs and configs hold."""

from __future__ import annotations

from typing import Any, NoReturn

__all__ = ["FrozenDict", "FrozenList", "freeze"]

_HOW = (
    "specs and configs are read-only: change a copy, data = spec.to_dict(), and load it with "
    "load_spec(data); to change how a cascade samples, pass options to sample()"
)


class FrozenDict(dict[str, Any]):
    """A dict that cannot be changed; ``copy()`` and ``|`` give an ordinary dict."""

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenDict, (dict(self),)

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenDict:
        return self


class FrozenList(list[Any]):
    """A list that cannot be changed; ``copy()``, ``+`` and slices give an ordinary list."""

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenList, (list(self),)

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenList:
        return self


def _refuse(self: object, *args: object, **options: object) -> NoReturn:
    raise TypeError(_HOW)


for _name in ("__setitem__", "__delitem__", "__ior__", "clear", "pop", "popitem"):
    setattr(FrozenDict, _name, _refuse)
for _name in ("setdefault", "update"):
    setattr(FrozenDict, _name, _refuse)
for _name in ("__setitem__", "__delitem__", "__iadd__", "__imul__", "append", "clear", "extend"):
    setattr(FrozenList, _name, _refuse)
for _name in ("insert", "pop", "remove", "reverse", "sort"):
    setattr(FrozenList, _name, _refuse)


def freeze(value: Any) -> Any:
    """A read-only copy of dicts and lists, also of those inside; other values as they are.

    >>> freeze({"a": [1]})["a"].append(2)
    Traceback (most recent call last):
    ...
    TypeError: specs and configs are read-only: change a copy, data = spec.to_dict(), and load it \
with load_spec(data); to change how a cascade samples, pass options to sample()
    """
    if type(value) is dict:
        return FrozenDict({key: freeze(item) for key, item in value.items()})
    if type(value) is list:
        return FrozenList(freeze(item) for item in value)
    return value
