"""Describes the fields of a config, from its JSON Schema: type, bounds, default, description."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Field", "describe"]

# The maximum of a 32-bit integer is not shown as a bound: it carries no information.
_UNBOUNDED = 2**31 - 1
_MAX_DEPTH = 8


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a config.

    Args:
        name: the key; dotted if the field is nested.
        type: the type in words: ``integer, 1 to 64, or null``.
        required: whether the field has no default.
        default: the default as a JSON value.
        description: the description of the field.
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
    """The fields of an object's JSON Schema in order; nested fields follow their object."""
    return list(_fields(schema, schema.get("$defs", {}), "", 0))


def _fields(
    schema: Mapping[str, Any], defs: Mapping[str, Any], prefix: str, depth: int
) -> Iterator[Field]:
    required = schema.get("required", ())
    for name, part in schema.get("properties", {}).items():
        path = f"{prefix}{name}"
        nested = _lookup(part, defs)
        description = part.get("description", nested.get("description", ""))
        yield Field(
            name=path,
            type=_type(part, defs, depth),
            required=name in required,
            default=part.get("default"),
            description=" ".join(str(description).split()),
        )
        if "properties" in nested and depth < _MAX_DEPTH:
            yield from _fields(nested, defs, f"{path}.", depth + 1)


def _lookup(part: Mapping[str, Any], defs: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = part.get("$ref")
    if reference is None:
        return part
    target: Mapping[str, Any] = defs.get(str(reference).rpartition("/")[2], {})
    return target


def _type(part: Mapping[str, Any], defs: Mapping[str, Any], depth: int) -> str:
    if depth > _MAX_DEPTH:
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
    low, above = part.get("minimum"), part.get("exclusiveMinimum")
    high, below = part.get("maximum"), part.get("exclusiveMaximum")
    if isinstance(high, int) and high >= _UNBOUNDED:
        high = None
    if low is not None and high is not None:
        return f", {low:g} to {high:g}"
    rows = [
        f"{sign} {value:g}"
        for sign, value in ((">", above), ("at least", low), ("<", below), ("at most", high))
        if value is not None
    ]
    return f", {' and '.join(rows)}" if rows else ""
