"""The sweep file: a base spec and axes of alternatives. Does not import torch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from cascadezoo.errors import InputError, Problem, UnknownNameError
from cascadezoo.spec.configs import Model
from cascadezoo.spec.files import parse_json, read_spec
from cascadezoo.spec.models import PartName, Text
from cascadezoo.util.limits import LARGEST_JSON, SHIPPED

__all__ = [
    "Alternative",
    "AxisSpec",
    "ResourceSpec",
    "SweepSpec",
    "read_sweep",
    "shipped_sweeps",
]

LABEL = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*")
LONGEST_LABEL = 40


@dataclass(frozen=True, slots=True)
class Alternative:
    """One value of an axis.

    Args:
        label: its name in names of cells and in tables.
        value: the value for the axis's path.
        stage: whether the value is a whole stage.
        settings: further values by path.
    """

    label: str
    value: Any
    stage: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)


class AxisSpec(Model):
    """An axis of a sweep: a place in the base spec and its alternatives."""

    name: PartName
    """The name of the axis, unique in the sweep; also a column of the tables."""
    path: Annotated[str, Field(min_length=1, max_length=400)]
    """A path into the base spec, with stages and phases by name or number: `stages.coarse`."""
    values: dict[str, Any] | list[Any]
    """A list of values, or values by label; for `stages.NAME` whole stages without their name.

    An alternative `{"stage": {...}, "settings": {"path": value}}` adds further settings; on other
    paths it is `{"value": ..., "settings": {"path": value}}`."""

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.values:
            raise ValueError("values are empty; give at least one")
        return self

    @property
    def seed(self) -> bool:
        """Whether cells that differ only on this axis are repetitions."""
        return self.path.rpartition(".")[2] == "seed"

    @property
    def whole_stage(self) -> bool:
        """Whether its alternatives are whole stages."""
        return re.fullmatch(r"stages\.[^.]+", self.path) is not None

    def alternatives(self) -> Iterator[tuple[str, Alternative | Problem]]:
        """Each value with its place in the axis; a problem for an invalid value."""
        rows: list[tuple[str, str | None, Any]]
        if isinstance(self.values, dict):
            rows = [(f"values.{label}", label, value) for label, value in self.values.items()]
        else:
            rows = [
                (f"values.{index}", _label(value, self.seed), value)
                for index, value in enumerate(self.values)
            ]
        for place, label, value in rows:
            if label is None:
                message = "needs a label: write the values as an object with labels as keys"
                yield place, Problem(place, message, code="label-missing")
            elif not LABEL.fullmatch(label) or len(label) > LONGEST_LABEL:
                message = (
                    f"{label!r} is not a label: use at most {LONGEST_LABEL} lower-case letters and "
                    "digits with single . _ - between; write the values as an object with labels "
                    "as keys"
                )
                yield place, Problem(place, message, code="label-form")
            else:
                yield place, self._alternative(place, label, value)

    def _alternative(self, place: str, label: str, value: Any) -> Alternative | Problem:
        if not self.whole_stage:
            if isinstance(value, dict) and value.keys() == {"value", "settings"}:
                if not isinstance(value["settings"], dict):
                    message = 'is not of the form {"value": ..., "settings": {"path": value}}'
                    return Problem(place, message, code="value-form")
                return Alternative(label, value["value"], settings=value["settings"])
            return Alternative(label, value)
        if not isinstance(value, dict):
            message = 'is not a stage; write {"kind": "...", "config": {...}}'
            return Problem(place, message, code="stage-form")
        settings: Any = {}
        if "stage" in value:
            unknown = sorted(value.keys() - {"stage", "settings"})
            if unknown:
                message = f"unknown key {unknown[0]!r}: beside stage, only settings is allowed"
                return Problem(place, message, code="stage-key")
            settings, value = value.get("settings", {}), value["stage"]
        if not isinstance(value, dict) or not isinstance(settings, dict):
            message = 'is not of the form {"stage": {"kind": "..."}, "settings": {"path": value}}'
            return Problem(place, message, code="stage-form")
        return Alternative(label, value, True, settings)


class ResourceSpec(Model):
    """The resources of one cell."""

    cpus: Annotated[int, Field(ge=1, le=4096)] | None = None
    """CPU cores and threads; None divides the machine's cores among the jobs."""
    gpus: Annotated[float, Field(ge=0.0, le=64.0)] = 0.0
    """GPUs; a fraction lets several cells share one."""
    memory_gib: Annotated[float, Field(gt=0.0, le=1e6)] | None = None
    """Memory, for the scheduling by Ray."""


class SweepSpec(Model):
    """A sweep: every combination of the axes' values, each built as a separate cascade."""

    schema_uri: Annotated[str, Field(max_length=4096)] | None = Field(default=None, alias="$schema")
    sweep_version: Literal[1] = 1
    name: PartName
    """The name of the sweep, and the prefix of the names of the cells' cascades."""
    description: Text = ""
    base: str | dict[str, Any]
    """The base spec of every cell: a shipped spec, a file beside this one, or inline."""
    settings: dict[str, Any] = {}
    """Changes of the base for all cells, by path."""
    axes: Annotated[list[AxisSpec], Field(min_length=1, max_length=16)]
    exclude: list[dict[str, str | list[str]]] = []
    """Combinations to exclude, given as labels of some axes."""
    match_parameters: dict[str, Annotated[int, Field(ge=1, le=2**53)]] = {}
    """Number of parameters of a stage in every cell, by its name; sets its widths."""
    match_flops: Annotated[float, Field(ge=1.0, le=1e30)] | None = None
    """FLOPs of the training of every cell, within 2 %; scales the steps of all its phases by one
    factor."""
    resources: ResourceSpec = ResourceSpec()

    def to_dict(self) -> dict[str, Any]:
        """The sweep as JSON data, with every default written out."""
        data = self.model_dump(mode="json", by_alias=True)
        if self.schema_uri is None:
            del data["$schema"]
        return data


def shipped_sweeps() -> list[str]:
    """The names of the sweeps that ship with the package, sorted."""
    from importlib import resources

    folder = resources.files("cascadezoo.spec.presets").joinpath("sweeps")
    return sorted(f.name.removesuffix(".json") for f in folder.iterdir() if f.name[-5:] == ".json")


def read_sweep(source: str | Path) -> tuple[dict[str, Any], str, Path]:
    """The JSON data of a sweep.

    Args:
        source: a file, ``-`` for standard input, or the name of a shipped sweep.

    Returns:
        The data, the source's name in error messages, and the folder of a relative base.

    Raises:
        SpecError: the text is not a JSON object.
        UnknownNameError: no file and no shipped sweep has this name.
        InputError: the file cannot be read.
    """
    name = str(source)
    if name == "-":
        return *read_spec("-"), Path()
    if SHIPPED.fullmatch(name) and name in shipped_sweeps():
        from importlib import resources

        folder = resources.files("cascadezoo.spec.presets").joinpath("sweeps")
        text = folder.joinpath(f"{name}.json").read_bytes()
        return parse_json(text, name), name, Path()
    path = Path(source)
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST_JSON + 1)
    except FileNotFoundError:
        raise UnknownNameError(
            f"sweep {name!r} not found: it is neither a file nor a shipped sweep",
            hint=f"use a .json file, or one of {', '.join(shipped_sweeps())}",
            code="lookup-sweep",
            name=name,
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot read sweep {name!r}: {error}", code="input-sweep-unreadable", name=name
        ) from error
    return parse_json(text, name), name, path.parent


def _label(value: Any, seed: bool) -> str | None:
    """A value in short form; None if it has no short form."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "null"
    if isinstance(value, int):
        return f"s{value}" if seed else str(value)
    if isinstance(value, float):
        return format(value, ".12g")
    return value.lower() if isinstance(value, str) else None
