"""Problems in words: pydantic's errors with the paths of the JSON data, and wrong roles."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from cascadezoo.errors import Problem
from cascadezoo.spec.configs import ImageShape

__all__ = ["problems_of", "role_problem", "setting_paths"]


def problems_of(
    error: ValidationError, raw: Any, path: str, model: type[BaseModel] | None = None
) -> Iterator[Problem]:
    """Convert a pydantic error to problems with paths of the JSON data.

    Args:
        error: the error.
        raw: the data that were validated.
        path: their path.
        model: the model that refused them; unknown keys then get a suggestion.
    """
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
        hint = None
        message = row["msg"].removeprefix("Value error, ")
        if row["type"] == "extra_forbidden":
            message = "unknown key"
            hint = None if model is None else _known_key(model, row["loc"], steps)
        elif row["type"] == "missing":
            message = "is missing"
        else:
            message = message[:1].lower() + message[1:] + _value(row["input"])
        yield Problem(".".join(steps), message, hint, code=row["type"].replace("_", "-"))


def _known_key(
    model: type[BaseModel], loc: tuple[int | str, ...], steps: Sequence[str]
) -> str | None:
    """A suggestion for an unknown key: a key of the same object, or of an object below it."""
    owner: type[BaseModel] | None = model
    for part in loc[:-1]:
        if owner is not None and isinstance(part, str) and part in owner.model_fields:
            owner = next(iter(_models(owner.model_fields[part].annotation)), None)
    if owner is None:
        return None
    wrong = str(loc[-1])
    folded = {_folded(name): name for name in _names(owner)}
    close = difflib.get_close_matches(_folded(wrong), list(folded), n=2, cutoff=0.7)
    if close:
        return f"did you mean {' or '.join(repr(folded[name]) for name in close)}?"
    inside = [".".join([*steps[:-1], path]) for path in setting_paths(owner, wrong)]
    return f"did you mean {' or '.join(map(repr, inside[:3]))}?" if inside else None


def _folded(name: str) -> str:
    return re.sub(r"[-_. ]", "", name).lower()


def _names(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def setting_paths(model: type[BaseModel], key: str) -> list[str]:
    """The paths of the fields of this name in a model, the nearest first.

    The place of an item of a list is in capitals: ``training.phases.PHASE.epochs``.

    Args:
        model: the model.
        key: the name; upper case, dashes, dots and underscores make no difference.
    """
    rows = [path for path in _paths(model, 4) if _folded(path[-1]) == _folded(key)]
    return [".".join(path) for path in sorted(rows, key=len)]


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models in an annotation such as ``list[PhaseSpec] | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _is_many(annotation: Any) -> bool:
    """Whether an annotation holds several models: ``list[PhaseSpec] | None``."""
    return get_origin(annotation) in (list, dict) or any(map(_is_many, get_args(annotation)))


def _paths(model: type[BaseModel], depth: int) -> Iterator[list[str]]:
    """The keys of a model and of the models inside."""
    yield from ([name] for name in _names(model))
    for name, field in model.model_fields.items():
        item = [name.removesuffix("s").upper()] if _is_many(field.annotation) else []
        for inner in _models(field.annotation) if depth > 1 else ():
            yield from ([name, *item, *path] for path in _paths(inner, depth - 1))


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
