"""Turns a sweep file into cells with valid specs. Does not import torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cascadezoo.errors import (
    InputError,
    PluginError,
    Problem,
    SpecError,
    UnknownNameError,
)
from cascadezoo.plugins.manager import get_registry
from cascadezoo.spec import ResolvedSpec, apply_settings, read_spec, resolve, shipped_specs
from cascadezoo.sweep.faults import Faults
from cascadezoo.sweep.grid import CellGrid, make_grid
from cascadezoo.sweep.spec import Alternative, SweepSpec, read_sweep
from cascadezoo.sweep.spec_paths import put

__all__ = ["Cell", "Sweep", "load_sweep"]

LONGEST_NAME = 80


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination of the axes' values.

    Args:
        name: its joined labels; also the name of its run folder.
        labels: its label on each axis.
        spec: its resolved spec as JSON data.
        digest: digest of the whole spec.
        training_digest: digest of the parts of the spec that determine the trained weights.
    """

    name: str
    labels: dict[str, str]
    spec: dict[str, Any]
    digest: str
    training_digest: str


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep with validated cells.

    Args:
        spec: as written.
        cells: in the order of the axes, the last one changing fastest.
        base: the resolved base.
        digest: digest of the names of all cells and of their training.
        source: the file or name of the sweep; None if it was given as data.
        settings: the ``path=value`` changes of the base.
    """

    spec: SweepSpec
    cells: list[Cell]
    base: ResolvedSpec
    digest: str
    source: str | None = None
    settings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The sweep's name."""
        return self.spec.name

    @property
    def axes(self) -> list[str]:
        """The names of the axes."""
        return [axis.name for axis in self.spec.axes]

    @property
    def seed_axes(self) -> list[str]:
        """The axes that are seeds."""
        return [axis.name for axis in self.spec.axes if axis.seed]

    @property
    def stage_axes(self) -> list[str]:
        """The axes whose alternatives are whole stages."""
        return [axis.name for axis in self.spec.axes if axis.whole_stage]

    def choose(self, only: Iterable[str]) -> list[Cell]:
        """Select the cells that meet all conditions.

        Args:
            only: ``AXIS=LABEL``, or ``AXIS=LABEL,LABEL`` for any of several.

        Raises:
            InputError: an unknown axis or label, or conditions that no cell meets.
        """
        known = {a.name: {c.labels[a.name]: None for c in self.cells} for a in self.spec.axes}
        cells = self.cells
        conditions = list(only)
        for condition in conditions:
            axis, equals, text = condition.partition("=")
            if not equals or axis not in known:
                raise InputError(
                    f"--only {condition!r} is not of the form AXIS=LABEL",
                    hint=f"the axes are {', '.join(known)}",
                    code="input-only-form",
                    condition=condition,
                )
            labels = text.split(",")
            for label in labels:
                if label not in known[axis]:
                    raise InputError(
                        f"--only {condition!r}: axis {axis!r} has no {label!r}",
                        hint=f"use one of {', '.join(known[axis])}",
                        code="input-only-unknown",
                        name=label,
                        axis=axis,
                    )
            cells = [cell for cell in cells if cell.labels[axis] in labels]
        if not cells:
            listed = " ".join(f"--only {condition}" for condition in conditions)
            raise InputError(
                f"{listed} matches no cell of {self.name}",
                code="input-only-nothing",
                name=self.name,
            )
        return cells


def load_sweep(
    source: SweepSpec | Mapping[str, Any] | str | Path, *, settings: Iterable[str] = ()
) -> Sweep:
    """Read a sweep and validate all its cells.

    Args:
        source: a sweep, its JSON data, a file, ``-``, or the name of a shipped sweep.
        settings: ``path=value`` changes of the base, as for ``cascadezoo build --set``;
            ``match_flops=value`` changes the sweep's own.

    Raises:
        SpecError: the file, its base or its cells are invalid; the error lists all problems.
        UnknownNameError: no file and no shipped sweep has this name.
        InputError: the file cannot be read, or the path of a setting does not exist.
    """
    name, folder = "sweep", Path()
    if isinstance(source, (str, Path)):
        data, name, folder = read_sweep(source)
    else:
        data = source.to_dict() if isinstance(source, SweepSpec) else dict(source)
    changes = tuple(settings)
    own = [change for change in changes if _is_own(change)]
    if own:
        data = {**data, "match_flops": _value_of(own[-1])}
    faults = Faults(name)
    grid = make_grid(data, faults)
    raw = _base(data, folder, [c for c in changes if not _is_own(c)], faults)
    base = _resolved(raw, faults) if raw is not None else None
    if raw is None or base is None:
        raise faults.error()
    grid.check_paths(base.spec.to_dict(), faults)
    if base.spec.publish is not None:
        faults.add(
            "base.publish",
            "would publish every cell to the same place",
            'remove it, or set "settings": {"publish": null}, and publish one cell later',
            code="publishes",
        )
    cells = _CellMaker(raw, base, grid, faults).cells()
    if grid.spec is None or faults.problems:
        raise faults.error()
    text = json.dumps([grid.spec.name, [(c.name, c.training_digest) for c in cells]])
    return Sweep(
        spec=grid.spec.model_copy(update={"base": raw}),
        cells=cells,
        base=base,
        digest=hashlib.sha256(text.encode()).hexdigest(),
        source=str(source) if isinstance(source, (str, Path)) else None,
        settings=changes,
    )


def _is_own(change: str) -> bool:
    """Whether a setting changes the sweep and not its base."""
    return change.partition("=")[0].strip() == "match_flops"


def _value_of(change: str) -> Any:
    """The value of a setting; text that is no JSON is left to the validation."""
    text = change.partition("=")[2]
    try:
        return json.loads(text)
    except ValueError:
        return text


def _base(
    data: Mapping[str, Any], folder: Path, changes: Iterable[str], faults: Faults
) -> dict[str, Any] | None:
    """The base's data with its settings; None if they are invalid, which is noted."""
    base = data.get("base")
    if isinstance(base, str):
        try:
            base = read_spec(base if base in shipped_specs() else folder / base)[0]
        except UnknownNameError as error:
            faults.add("base", error.what, error.hint, code=error.code)
            return None
        except SpecError as error:
            for problem in error.problems:
                faults.add("base", f"{error.source} {problem}", code=problem.code)
            return None
        except InputError as error:
            faults.add("base", error.what, error.hint, code=error.code)
            return None
    if not isinstance(base, dict):
        return None  # reported already
    settings = data.get("settings", {})
    if isinstance(settings, dict):
        rows = [f"{path}={json.dumps(value)}" for path, value in settings.items()]
        try:
            base = apply_settings(base, rows)
        except InputError as error:
            faults.add("settings", error.what.removeprefix("--set "), error.hint, code=error.code)
            return None
    return apply_settings(base, changes)


def _resolved(raw: dict[str, Any], faults: Faults) -> ResolvedSpec | None:
    try:
        return resolve(raw)
    except SpecError as error:
        for problem in error.problems:
            path = f"base.{problem.path}" if problem.path else "base"
            faults.add(path, problem.message, problem.hint, code=problem.code)
        return None


class _CellMaker:
    """Makes the cells and collects the faults of each."""

    def __init__(
        self,
        raw: dict[str, Any],
        base: ResolvedSpec,
        grid: CellGrid,
        faults: Faults,
    ) -> None:
        self.raw = raw
        self.resolved = base.spec.to_dict()
        self.grid = grid
        self.name = grid.spec.name if grid.spec is not None else "sweep"
        self.counts = grid.spec.match_parameters if grid.spec is not None else {}
        self.faults = faults
        self.flops = grid.spec.match_flops if grid.spec is not None else None
        self.matched: dict[str, Any] = {}
        self.lengths: dict[str, list[int] | InputError] = {}

    def cells(self) -> list[Cell]:
        """All valid cells; faults of the others are noted."""
        known = [stage["name"] for stage in self.resolved["stages"]]
        for name in [name for name in self.counts if name not in known]:
            listed = ", ".join(repr(n) for n in known)
            message = f"{name!r} is not a stage of the base"
            self.faults.add(
                f"match_parameters.{name}", message, f"use one of {listed}", code="unknown-stage"
            )
            self.counts = {}
        made = []
        for name, row in self.grid.rows(self.faults):
            labels = {axis: chosen.label for axis, chosen in row.items()}
            cell = self.cell(name, labels, row)
            if cell is not None:
                made.append(cell)
        self.faults.attribute(self.grid.labels())
        return made

    def cell(
        self, name: str, labels: dict[str, str], row: Mapping[str, Alternative]
    ) -> Cell | None:
        data = json.loads(json.dumps(self.raw))
        full = f"{self.name}-{name}"
        if len(full) > LONGEST_NAME:
            problem = Problem(
                "",
                f"its name {full!r} is longer than {LONGEST_NAME} characters",
                code="name-too-long",
            )
            self.faults.of_cell(name, labels, problem)
            return None
        data["name"] = full
        try:
            for path, value in self.changes(row):
                put(data, path, value, self.resolved)
        except LookupError as error:
            problem = Problem(path, str(error.args[0]), code="unknown-path")
            self.faults.of_cell(name, labels, problem)
            return None
        try:
            _drop_parameterless(data)
            resolved = resolve(self.match_steps(self.match(data)), source=name)
        except SpecError as error:
            for problem in error.problems:
                self.faults.of_cell(name, labels, problem)
            return None
        except InputError as error:
            key = (
                "match_flops" if error.code.startswith("input-match-flops") else "match_parameters"
            )
            problem = Problem(key, error.what, error.hint, code=error.code)
            self.faults.of_cell(name, labels, problem)
            return None
        spec = resolved.spec
        return Cell(name, labels, spec.to_dict(), spec.digest(), spec.training_digest())

    def changes(self, row: Mapping[str, Alternative]) -> list[tuple[str, Any]]:
        """A cell's changes of the base, ordered from whole parts to their inner values."""
        rows: list[tuple[str, Any]] = []
        for _, axis, _ in self.grid.axes:
            chosen = row[axis.name]
            value = chosen.value
            if chosen.stage:
                name = self.resolved["stages"][int(self.grid.place(axis)[1])]["name"]
                value = {**value, "name": name}
            rows += [(axis.path, value), *chosen.settings.items()]
        return sorted(rows, key=lambda pair: pair[0].count("."))

    def match(self, data: dict[str, Any]) -> dict[str, Any]:
        """The data with widths that give stages the requested number of parameters."""
        fixed = _parameterless(data)
        counts = {n: c for n, c in self.counts.items() if n not in fixed}
        if not counts:
            return data
        key = json.dumps([data["stages"], data["data"], counts], sort_keys=True)
        if key not in self.matched:
            from cascadezoo.build.match_parameters import match_parameters

            resolve(data)  # reports faults of the cell itself
            try:
                self.matched[key] = match_parameters(data, counts)["stages"]
            except SpecError:
                raise
            except InputError as error:
                self.matched[key] = error
        stages = self.matched[key]
        if isinstance(stages, InputError):
            raise stages
        return {**data, "stages": stages}

    def match_steps(self, data: dict[str, Any]) -> dict[str, Any]:
        """The data with steps that give the training the requested FLOPs."""
        if self.flops is None:
            return data
        resolved = resolve(data)  # reports faults of the cell itself
        spec = resolved.spec.to_dict()
        key = json.dumps([spec["stages"], spec["data"], spec["training"]], sort_keys=True)
        if key not in self.lengths:
            from cascadezoo.build.match_flops import match_flops

            try:
                phases = match_flops(spec, self.flops)["training"]["phases"]
                self.lengths[key] = [phase["steps"] for phase in phases]
            except SpecError:
                raise
            except InputError as error:
                self.lengths[key] = error
        steps = self.lengths[key]
        if isinstance(steps, InputError):
            raise steps
        for phase, count in zip(spec["training"]["phases"], steps, strict=True):
            phase["steps"] = count
        return spec


def _parameterless(data: Mapping[str, Any]) -> set[str]:
    """The names of stages without trainable parameters; the resolver reports faults."""
    names = set()
    for stage in data["stages"] if isinstance(data["stages"], list) else ():
        try:
            config = get_registry().stages.get(stage["kind"]).entry.load_config()
        except (KeyError, TypeError, AttributeError, PluginError):
            continue
        if getattr(config, "parameterless", False):
            names.add(stage["name"])
    return names


def _drop_parameterless(data: dict[str, Any]) -> None:
    """Remove stages without parameters from the phases, and phases that become empty."""
    phases = data["training"].get("phases") if isinstance(data.get("training"), dict) else None
    if not isinstance(phases, list):
        return
    fixed = _parameterless(data)
    kept = []
    for phase in phases:
        train = phase.get("train") if isinstance(phase, dict) else None
        if isinstance(train, list) and fixed & {n for n in train if isinstance(n, str)}:
            phase["train"] = [name for name in train if name not in fixed]
            if isinstance(phase.get("stages"), dict):
                phase["stages"] = {n: s for n, s in phase["stages"].items() if n not in fixed}
            if not phase["train"]:
                continue
        kept.append(phase)
    data["training"]["phases"] = kept
