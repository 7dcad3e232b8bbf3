"""Configs and parts of specs as objects, in place of JSON data. Does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from cascadezoo.errors import CascadezooError, Problem
from cascadezoo.plugins.manager import get_registry

__all__ = ["ConfigKindError", "config_data", "json_data"]

_TABLES = {"stages": "stages", "losses": "losses", "callbacks": "callbacks"}
"""The table of the registry for the items of a list of a spec."""


class ConfigKindError(ValueError):
    """A config object belongs to another kind.

    Args:
        message: the error.
        path: where the config is.
    """

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.problem = Problem(path, message, code="config-of-other-kind")


def config_data(value: Any, name: Any, table: str) -> Any:
    """The JSON data of a config object; anything else unchanged.

    Only the fields that were given are included.

    Args:
        value: a config, or JSON data.
        name: the registered name that the config is for.
        table: the table of the registry: ``stages``, ``datasets``, ``losses`` or ``callbacks``.

    Raises:
        ConfigKindError: the config belongs to another name.
    """
    if not isinstance(value, BaseModel):
        return value
    if isinstance(name, str):
        try:
            row = getattr(get_registry(), table).get(name)
            needed = row.entry.load_config()
        except CascadezooError:
            pass  # resolving the spec reports the name
        else:
            given = type(value)
            if given is not needed:
                raise ConfigKindError(
                    f"is a {given.__name__}{_owners(given, table)}, but {row.entry.name} takes a "
                    f"{needed.__name__}"
                )
    return value.model_dump(mode="json", exclude_unset=True)


def _owners(config: type, table: str) -> str:
    """The registered names that take a config: `` of diffusion.v1``; empty if none does."""
    names = []
    for row in getattr(get_registry(), table):
        try:
            if row.entry.load_config() is config:
                names.append(row.entry.name)
        except CascadezooError:
            continue
    return f" of {' and '.join(names)}" if names else ""


def json_data(value: Any, place: tuple[str, ...] = ()) -> Any:
    """JSON data with the objects in it converted, such as ``StageSpec`` or ``FlowConfig``.

    Args:
        value: JSON data, in which dicts and lists may contain models of pydantic.
        place: the path of the value.

    Raises:
        ConfigKindError: a config belongs to another kind.
    """
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if isinstance(value, Mapping):
        rows = {key: json_data(item, (*place, str(key))) for key, item in value.items()}
        config = value.get("config")
        table = "datasets" if place == ("data",) else _TABLES.get(place[-2] if place[1:] else "")
        if isinstance(config, BaseModel) and table is not None:
            name = value.get("source" if table == "datasets" else "kind")
            try:
                rows["config"] = config_data(config, name, table)
            except ConfigKindError as error:
                raise ConfigKindError(str(error), ".".join((*place, "config"))) from None
        return rows
    if isinstance(value, (list, tuple)):
        return [json_data(item, (*place, str(row))) for row, item in enumerate(value)]
    return value
