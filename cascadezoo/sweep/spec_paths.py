"""Paths into a spec: validation, canonical form, and setting of values."""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Iterator, Sequence
from typing import Any

__all__ = ["canonical", "fault_of", "nearest", "put"]

# Keys below which any name is allowed; the spec's own validation reports wrong ones.
_OPEN = frozenset({"stages", "groups"})


def canonical(tree: Any, path: str) -> tuple[str, ...]:
    """The steps of a path, with list items by number as far as the tree reaches.

    >>> canonical({"stages": [{"name": "up"}]}, "stages.up.config.hidden")
    ('stages', '0', 'config', 'hidden')
    """
    steps: list[str] = []
    node = tree
    for part in path.split("."):
        index = _index(node, part) if isinstance(node, list) else None
        steps.append(part if index is None else str(index))
        node = _child(node, part)
    return tuple(steps)


def fault_of(tree: Any, path: str) -> str | None:
    """The fault of a path; None if it names a value or may name one.

    Any path is allowed below a null value, and any name among freely chosen names.

    Args:
        tree: a resolved spec.
        path: keys joined by dots.
    """
    node, parts = tree, path.split(".")
    for place, part in enumerate(parts):
        where = ".".join(parts[:place])
        if isinstance(node, dict):
            if part not in node:
                free = place and parts[place - 1] in _OPEN
                return None if free else f"{where or 'the spec'} has no {part!r}"
            node = node[part]
        elif isinstance(node, list):
            index = _index(node, part)
            if index is None:
                return f"{where} has no {part!r}"
            node = node[index]
        elif node is None:
            return None
        else:
            return f"{where} has no inner values"
    return None


def nearest(tree: Any, path: str) -> str | None:
    """The most similar path in the tree; None if no path is similar."""
    matches = difflib.get_close_matches(path, list(_paths(tree, "")), n=1, cutoff=0.6)
    return matches[0] if matches else None


def put(data: dict[str, Any], path: str, value: Any, resolved: Any) -> None:
    """Set a value in the data of a spec, in place.

    Default lists that the data omit, such as ``training.phases``, are inserted first.

    Args:
        data: the data of a spec, as written.
        path: keys joined by dots.
        value: JSON data; copied.
        resolved: the same spec with every default written out.

    Raises:
        LookupError: a list has no such item, or a value on the path has no inner values.
    """
    node: Any = data
    *way, last = path.split(".")
    for place, part in enumerate(way):
        resolved = _child(resolved, part)
        if isinstance(node, dict):
            if node.get(part) is None:
                node[part] = copy.deepcopy(resolved) if isinstance(resolved, list) else {}
                if way[: place + 1] == ["training", "phases"]:
                    _inherit(node[part])
            node = node[part]
        else:
            node = node[_known(node, part)]
    if isinstance(node, dict):
        node[last] = copy.deepcopy(value)
    else:
        node[_known(node, last)] = copy.deepcopy(value)


def _inherit(phases: list[dict[str, Any]]) -> None:
    """Reset optimizer and schedule to those of ``training``, which may be an axis too."""
    for phase in phases:
        phase.update(optimizer=None, schedule=None)


def _known(node: Any, part: str) -> int:
    index = _index(node, part) if isinstance(node, list) else None
    if index is None:
        raise LookupError(f"{part!r} does not exist")
    return index


def _index(node: list[Any], part: str) -> int | None:
    names = [item.get("name") if isinstance(item, dict) else None for item in node]
    if part in names:
        return names.index(part)
    if re.fullmatch(r"[0-9]{1,9}", part) and int(part) < len(node):
        return int(part)
    return None


def _child(node: Any, part: str) -> Any:
    if isinstance(node, dict):
        return node.get(part)
    if isinstance(node, list):
        index = _index(node, part)
        return None if index is None else node[index]
    return None


def _paths(node: Any, before: str) -> Iterator[str]:
    rows: Sequence[tuple[str, Any]] = ()
    if isinstance(node, dict):
        rows = list(node.items())
    elif isinstance(node, list):
        # By name if items have names, as people write them.
        rows = [
            (str(item["name"]) if isinstance(item, dict) and "name" in item else str(index), item)
            for index, item in enumerate(node)
        ]
    for name, child in rows:
        path = f"{before}.{name}" if before else name
        yield path
        yield from _paths(child, path)
