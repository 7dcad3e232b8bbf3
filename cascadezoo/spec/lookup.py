"""Names with an argument: ``timm:resnet18`` is the entry ``timm`` with one setting of it."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import ValidationError

from cascadezoo.errors import InputError, PluginError
from cascadezoo.plugins.registry import Entry, Registered, Table

__all__ = ["look_up"]

E = TypeVar("E", bound=Entry)


def look_up(table: Table[E], text: str) -> tuple[Registered[E], Any]:
    """The entry that a name stands for, and an instance of its config.

    Args:
        table: where to look.
        text: a registered name, or ``NAME:ARGUMENT``, where the entry's config class names the
            field that the argument sets as ``argument``.

    Raises:
        UnknownNameError: nothing is registered under that name.
        InputError: the entry takes no argument, needs one, or not this one.
        PluginError: its config cannot be imported, or has no defaults.
    """
    name, colon, argument = text.partition(":")
    found = table.get(name)
    config = found.entry.load_config()
    field = getattr(config, "argument", None)
    if colon and field is None:
        raise InputError(
            f"{table.what} {name!r} takes nothing after a colon",
            hint=f"write {name}",
            code="input-no-argument",
            kind=table.what,
            name=name,
        )
    try:
        return found, config(**({str(field): argument} if colon else {}))
    except ValidationError as error:
        if field is None:
            raise PluginError(
                f"{found.entry.config} of the {table.what} {name!r} ({found.origin}) has no "
                "defaults",
                code="plugin-no-defaults",
                kind=table.what,
                name=name,
            ) from error
        fault = error.errors(include_url=False)[0]
        told = "is missing" if fault["type"] == "missing" else fault["msg"]
        raise InputError(
            f"{table.what} {text!r}: {field} {told[:1].lower() + told[1:]}",
            hint=f"write {name}:{field.upper()}",
            code="input-argument-invalid",
            kind=table.what,
            name=text,
        ) from error
