"""Reads the values of ``sample --option [STAGE.]NAME=VALUE``. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from cascadezoo.spec import ResolvedSpec
    from cascadezoo.spec.configs import Option

__all__ = ["read_options"]


def read_options(texts: Iterable[str], resolved: ResolvedSpec) -> dict[str, Any]:
    """The options by name: a value for all stages that support it, or a dict by stage.

    A value has the type that the stage's config declares. A name that no config declares is passed
    on as a number, true, false or text; the cascade refuses it if no stage supports it.

    Args:
        texts: ``[STAGE.]NAME=VALUE``.
        resolved: the model's spec.

    Raises:
        click.UsageError: a text has another form, a stage is unknown, a name is repeated, or a
            value has another type.
    """
    names = [stage.name for stage in resolved.stages]
    options: dict[str, Any] = {}
    for text in texts:
        path, found, value = text.partition("=")
        stage, _, name = path.strip().rpartition(".")
        if not found or not name:
            raise click.UsageError(f"--option {text!r} does not have the form [STAGE.]NAME=VALUE")
        if stage and stage not in names:
            listed = ", ".join(names)
            raise click.UsageError(f"--option {text!r}: no stage {stage!r}; use one of {listed}")
        declared = [
            row.config.sampling_options[name]
            for row in resolved.stages
            if name in row.config.sampling_options and stage in ("", row.name)
        ]
        read = _read(text, value.strip(), declared[0] if declared else None)
        before = options.get(name)
        if before is not None and (not stage or not isinstance(before, dict) or stage in before):
            raise click.UsageError(f"--option: {name} is set twice")
        options[name] = {**(before or {}), stage: read} if stage else read
    return options


def _read(text: str, value: str, option: Option | None) -> Any:
    if option is None:
        try:
            read = json.loads(value)
        except ValueError:
            return value
        return read if isinstance(read, (bool, int, float)) else value
    try:
        return option.parse(value)
    except ValueError:
        raise click.UsageError(f"--option {text!r}: the value must be a {option}") from None
