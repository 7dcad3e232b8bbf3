"""JSON Schema of specs, with the config of every installed kind, for editors."""

from __future__ import annotations

from typing import Any

from cascadezoo.errors import PluginError
from cascadezoo.plugins.faults import Owner
from cascadezoo.plugins.manager import get_registry
from cascadezoo.plugins.registry import Registry, Table
from cascadezoo.spec.models import CascadeSpec

__all__ = ["kind_schema", "spec_schema"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def kind_schema(kind: str, registry: Registry | None = None) -> dict[str, Any]:
    """The JSON Schema of one stage kind's config.

    Raises:
        UnknownNameError: the kind is not registered.
        PluginError: its config cannot be imported or described.
    """
    row = (registry or get_registry()).stages.get(kind)
    entry, config = row.entry, row.entry.load_config()
    with Owner.of(row).guard("to describe its config", config):
        schema: dict[str, Any] = config.model_json_schema()
    return {"$schema": DIALECT, **schema, "title": entry.name}


def spec_schema(registry: Registry | None = None) -> dict[str, Any]:
    """The JSON Schema of a spec, including the schema of each kind's config.

    Kinds of broken plugins are left out.
    """
    registry = registry or get_registry()
    schema = CascadeSpec.model_json_schema(by_alias=True)
    defs = schema.setdefault("$defs", {})
    _branch(defs, "StageSpec", "kind", registry.stages)
    _branch(defs, "DataSpec", "source", registry.datasets)
    _branch(defs, "LossSpec", "kind", registry.losses)
    _branch(defs, "CallbackSpec", "kind", registry.callbacks)
    return {"$schema": DIALECT, **schema, "title": "cascadezoo spec"}


def _branch(defs: dict[str, Any], model: str, key: str, table: Table[Any]) -> None:
    names, branches = [], []
    for row in table:
        try:
            config, prefix = row.entry.load_config(), _escaped(row.entry.name)
            with Owner.of(row).guard("to describe its config", config):
                schema = config.model_json_schema(ref_template=f"#/$defs/{prefix}.{{model}}")
        except PluginError:
            continue
        for name, part in schema.pop("$defs", {}).items():
            defs[f"{row.entry.name}.{name}"] = part
        defs[f"config of {row.entry.name}"] = schema
        newest = table.resolve(row.entry.name.rpartition(".v")[0] or row.entry.name)
        spellings = [row.entry.name]
        if newest == row.entry.name and ".v" in newest:
            spellings.append(newest.rpartition(".v")[0])
        names += spellings
        target = _escaped(row.entry.name)
        branches.append(
            {
                "if": {"properties": {key: {"enum": spellings}}, "required": [key]},
                "then": {"properties": {"config": {"$ref": f"#/$defs/config of {target}"}}},
            }
        )
    part = defs[model]
    part["properties"][key] = {**part["properties"][key], "enum": names}
    if branches:
        part["allOf"] = branches


def _escaped(name: str) -> str:
    """A name inside a JSON pointer, in which a slash separates parts (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")
