"""Names with an argument: ``timm:resnet18`` is the entry ``timm`` with one setting."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import ValidationError

from cascadezoo.errors import InputError, PluginError
from cascadezoo.plugins.registry import Entry, Registered, Table

__all__ = ["look_up"]

E = TypeVar("E", bound=Entry)


def look_up(table: Table[E], text: str) -> tuple[Registered[E], Any]:
    """The entry of a name, and an instance of its config.

    Args:
        table: the registered entries.
        text: a registered name, or ``NAME:ARGUMENT``. The attribute ``argument`` of the entry's
            config class is the name of the field that the argument sets.

    Raises:
        UnknownNameError: the name is not registered.
        InputError: the entry takes no argument, needs an argument, or rejects this one.
        PluginError: its config cannot be imported, or has no defaults.
    """
    name, colon, argument = text.partition(":")
    registered = table.get(name)
    config = registered.entry.load_config()
    field = getattr(config, "argument", None)
    if colon and field is None:
        raise InputError(
            f"{table.what} {name!r} takes no argument after a colon",
            hint=f"write {name}",
            code="input-no-argument",
            kind=table.what,
            name=name,
        )
    try:
        return registered, config(**({str(field): argument} if colon else {}))
    except ValidationError as error:
        if field is None:
            raise PluginError(
                f"{registered.entry.config} of the {table.what} {name!r} ({registered.origin}) "
                "has no defaults",
                code="plugin-no-defaults",
                kind=table.what,
                name=name,
            ) from error
        row = error.errors(include_url=False)[0]
        reason = "is missing" if row["type"] == "missing" else row["msg"]
        raise InputError(
            f"{table.what} {text!r}: {field} {reason[:1].lower() + reason[1:]}",
            hint=f"write {name}:{field.upper()}",
            code="input-argument-invalid",
            kind=table.what,
            name=text,
        ) from error
