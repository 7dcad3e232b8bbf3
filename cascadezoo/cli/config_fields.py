"""A config's JSON Schema as a list of fields in words: type, bounds, default, description."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Field", "describe"]

# Integers that only say "as many as a 32-bit machine counts" tell a reader nothing.
_ENDLESS = 2**31 - 1
_DEEPEST = 8


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a config.

    Args:
        name: its key; dotted where it is inside another.
        type: what it may hold, in words: ``integer, 1 to 64, or null``.
        required: there is no default.
        default: the default, as JSON holds it.
        description: what it is for.
    """

    name: str
    type: str
    required: bool
    default: Any
    description: str

    def to_dict(self) -> dict[str, Any]:
        """The field as ``--json`` prints it."""
        return asdict(self)


def describe(schema: Mapping[str, Any]) -> list[Field]:
    """The fields of an object's JSON Schema, in their order; those of inner objects follow it."""
    return list(_fields(schema, schema.get("$defs", {}), "", 0))


def _fields(
    schema: Mapping[str, Any], defs: Mapping[str, Any], prefix: str, depth: int
) -> Iterator[Field]:
    required = schema.get("required", ())
    for name, part in schema.get("properties", {}).items():
        path = f"{prefix}{name}"
        yield Field(
            name=path,
            type=_type(part, defs, depth),
            required=name in required,
            default=part.get("default"),
            description=" ".join(str(_lookup(part, defs).get("description", "")).split())
            if "description" not in part
            else " ".join(str(part["description"]).split()),
        )
        inner = _lookup(part, defs)
        if "properties" in inner and depth < _DEEPEST:
            yield from _fields(inner, defs, f"{path}.", depth + 1)


def _lookup(part: Mapping[str, Any], defs: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = part.get("$ref")
    if reference is None:
        return part
    found: Mapping[str, Any] = defs.get(str(reference).rpartition("/")[2], {})
    return found


def _type(part: Mapping[str, Any], defs: Mapping[str, Any], depth: int) -> str:
    if depth > _DEEPEST:
        return "..."
    part = _lookup(part, defs)
    if "const" in part:
        return json.dumps(part["const"])
    if "enum" in part:
        return " or ".join(json.dumps(value) for value in part["enum"])
    for key in ("anyOf", "oneOf"):
        if key in part:
            names = [_type(option, defs, depth + 1) for option in part[key]]
            return ", or ".join(dict.fromkeys(names))
    kind = part.get("type")
    if kind in ("integer", "number"):
        return f"{kind}{_bounds(part)}"
    if kind == "array":
        return _array(part, defs, depth)
    if kind == "string" and "pattern" in part:
        return f"string like {part['pattern']}"
    return str(kind) if kind else "anything"


def _array(part: Mapping[str, Any], defs: Mapping[str, Any], depth: int) -> str:
    if "prefixItems" in part:
        items = ", ".join(_type(item, defs, depth + 1) for item in part["prefixItems"])
        return f"list of [{items}]"
    least, most = part.get("minItems"), part.get("maxItems")
    count = ""
    if least is not None and least == most:
        count = f"{least} "
    elif least is not None and most is not None:
        count = f"{least} to {most} "
    elif least:
        count = f"{least} or more "
    elif most is not None:
        count = f"up to {most} "
    item = _type(part.get("items", {}), defs, depth + 1)
    return f"list of {count}({item})"


def _bounds(part: Mapping[str, Any]) -> str:
    low, over = part.get("minimum"), part.get("exclusiveMinimum")
    high, under = part.get("maximum"), part.get("exclusiveMaximum")
    if isinstance(high, int) and high >= _ENDLESS:
        high = None
    if low is not None and high is not None:
        return f", {low:g} to {high:g}"
    rows = [
        f"{sign} {value:g}"
        for sign, value in ((">", over), ("at least", low), ("<", under), ("at most", high))
        if value is not None
    ]
    return f", {' and '.join(rows)}" if rows else ""
