"""Problems in words: pydantic's errors with the paths of the JSON data, and wrong roles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from cascadezoo.errors import Problem
from cascadezoo.spec.configs import ImageShape

__all__ = ["problems_of", "role_problem"]


def problems_of(error: ValidationError, raw: Any, path: str) -> Iterator[Problem]:
    """Convert a pydantic error to problems with paths of the JSON data."""
    for row in error.errors(include_url=False, include_context=False):
        steps = [path] if path else []
        node = raw
        for position, part in enumerate(row["loc"]):
            last = position == len(row["loc"]) - 1
            inside = isinstance(node, Mapping) and (part in node or last)
            inside = inside or (isinstance(node, (list, tuple)) and isinstance(part, int))
            if not inside:
                continue  # the name of a union's branch, not a place in the JSON
            steps.append(str(part))
            node = _step(node, part)
        message = row["msg"].removeprefix("Value error, ")
        if row["type"] == "extra_forbidden":
            message = "unknown key"
        elif row["type"] == "missing":
            message = "is missing"
        else:
            message = message[:1].lower() + message[1:] + _value(row["input"])
        yield Problem(".".join(steps), message, code=row["type"].replace("_", "-"))


def role_problem(role: str, upstream: ImageShape | None) -> str | None:
    """The reason why a stage of this role cannot need this upstream; None if it can."""
    if (upstream is None) != (role == "generator"):
        return "it needs no upstream image" if upstream is None else f"it needs {upstream}"
    if role == "decoder" and upstream is not None and not upstream.latent:
        return f"it needs images ({upstream}), not latents"
    return None


def _step(node: Any, part: Any) -> Any:
    if isinstance(node, Mapping):
        return node.get(part)
    return node[part] if isinstance(part, int) and part < len(node) else None


def _value(value: Any) -> str:
    if isinstance(value, (Mapping, list, tuple)):
        return ""
    text = repr(value)
    return f", not {text if len(text) <= 60 else text[:57] + '...'}"
