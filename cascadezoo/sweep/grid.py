"""The grid of a sweep: its axes, their alternatives, and the rows that are left of the product."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from cascadezoo.spec.faults import problems_of
from cascadezoo.sweep.faults import Faults
from cascadezoo.sweep.results import label_text
from cascadezoo.sweep.spec import Alternative, AxisSpec, SweepSpec
from cascadezoo.sweep.spec_paths import canonical, fault_of, nearest

__all__ = ["MOST_CELLS", "CellGrid", "make_grid"]

MOST_CELLS = 10_000

Row = dict[str, Alternative]


@dataclass(slots=True)
class CellGrid:
    """The axes of a sweep as far as they can be understood.

    Args:
        spec: the whole sweep; None where it does not validate.
        axes: index in the file, axis and alternatives of those that do.
        broken: whether cells cannot be made of it.
    """

    spec: SweepSpec | None
    axes: list[tuple[int, AxisSpec, list[Alternative]]] = field(default_factory=list)
    broken: bool = False
    _places: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _rows: list[tuple[str, Row]] = field(default_factory=list)

    def place(self, axis: AxisSpec) -> tuple[str, ...]:
        """The steps of an axis's path; known once the paths have been checked."""
        return self._places[axis.name]

    def labels(self) -> list[dict[str, str]]:
        """The labels of every row that :meth:`rows` gave."""
        return [{axis: chosen.label for axis, chosen in row.items()} for _, row in self._rows]

    def check_paths(self, tree: dict[str, Any], faults: Faults) -> None:
        """Note paths that name nothing in the base, and places that are set twice.

        Args:
            tree: the resolved base.
            faults: where they are noted.
        """
        asked: list[tuple[str, str, str]] = []  # where it stands, what sets it, the path
        for index, axis, alternatives in self.axes:
            self._places[axis.name] = canonical(tree, axis.path)
            asked.append((f"axes.{index}.path", f"axis {axis.name!r}", axis.path))
            for chosen in alternatives:
                self._check_name(index, axis, chosen, tree, faults)
                where = f"axes.{index}.values.{chosen.label}.settings"
                by = f"{axis.name}={chosen.label}"
                asked += [(f"{where}.{path}", by, path) for path in chosen.settings]
        replaced = [place for place in self._places.values() if place]
        for where, by, path in asked:
            place = canonical(tree, path)
            # What stands in a replaced part is not the base's to tell; nor is a config whose
            # kind is replaced.
            free = any(
                place != other
                and (place[: len(other)] == other or _config_of(other) == place[: len(other)])
                for other in replaced
            )
            fault = None if free else fault_of(tree, path)
            if fault is not None:
                near = nearest(tree, path)
                hint = f"did you mean {near}?" if near else None
                faults.add(
                    where,
                    f"{path!r} names nothing in the base spec: {fault}",
                    hint,
                    code="unknown-path",
                )
                self._leave_out(by, path)
        self._twice(tree, asked, faults)

    def rows(self, faults: Faults) -> Iterator[tuple[str, Row]]:
        """Name and alternatives of every cell, in the order of the axes.

        Too many cells, names that two cells share and excludes that match nothing are noted
        before the first row is given. Of a broken grid the rows of what is whole are given, so
        that faults of the cells are told together with those of the grid.
        """
        if not self.axes:
            return  # each was at fault
        count = math.prod(len(alternatives) for *_, alternatives in self.axes)
        if count > MOST_CELLS:
            sizes = " x ".join(str(len(alternatives)) for *_, alternatives in self.axes)
            faults.add(
                "axes",
                f"{sizes} = {count:,} cells are more than {MOST_CELLS:,}",
                "give fewer values, or several sweeps",
                code="too-many-cells",
            )
            faults.check()
        excluded = self.spec.exclude if self.spec is not None else []
        rules = [_Rule(index, rule) for index, rule in enumerate(excluded)]
        if not self.broken:
            self._check_rules(rules, faults)
        names = [axis.name for _, axis, _ in self.axes]
        seen: dict[str, dict[str, str]] = {}
        rows: list[tuple[str, Row]] = []
        for values in itertools.product(*(alternatives for *_, alternatives in self.axes)):
            row = dict(zip(names, values, strict=True))
            labels = {axis: chosen.label for axis, chosen in row.items()}
            # Every rule is asked, so that each knows whether it was of use.
            if sum(rule.holds(labels) for rule in rules):
                continue
            name = label_text(labels)
            if name in seen and not self.broken:
                listed = " and ".join(_listed(found) for found in (seen[name], labels))
                hint = "change a label of one of them"
                faults.add(
                    "axes",
                    f"two cells would have the name {name!r}: {listed}",
                    hint,
                    code="cell-name-taken",
                )
            seen[name] = labels
            rows.append((name, row))
        for rule in rules:
            if not (rule.used or rule.faulty or self.broken):
                message = "leaves out nothing: no cell has these labels"
                faults.add(f"exclude.{rule.index}", message, code="excludes-nothing")
        if not rows and not self.broken:
            faults.add("exclude", "leaves out every cell", code="excludes-all")
        self._rows = rows
        yield from rows

    def _check_name(
        self, index: int, axis: AxisSpec, chosen: Alternative, tree: Any, faults: Faults
    ) -> None:
        """A stage keeps its name, which phases and losses go by."""
        place = self._places[axis.name]
        if not chosen.stage or "name" not in chosen.value or fault_of(tree, axis.path):
            return
        name = tree["stages"][int(place[1])]["name"]
        if chosen.value["name"] != name:
            where = f"axes.{index}.values.{chosen.label}.name"
            message = f"is {chosen.value['name']!r}, but a stage keeps its name, {name!r}"
            faults.add(where, message, "leave name out", code="stage-renamed")
            self.broken = True

    def _leave_out(self, by: str, path: str) -> None:
        """Leave out an axis, or the alternative whose settings are at fault."""
        self.broken = True
        self.axes = [
            (index, axis, left)
            for index, axis, chosen in self.axes
            if axis.path != path and (left := [c for c in chosen if f"{axis.name}={c.label}" != by])
        ]

    def _twice(self, tree: Any, asked: list[tuple[str, str, str]], faults: Faults) -> None:
        first: dict[tuple[str, ...], str] = {}
        for where, by, path in asked:
            place = canonical(tree, path)
            other = first.setdefault(place, by)
            same_axis = other.partition("=")[0] == by.partition("=")[0] and "=" in by
            if other != by and not same_axis:
                faults.add(where, f"{path!r} is set by {other} already", code="set-twice")
                self.broken = True

    def _check_rules(self, rules: list[_Rule], faults: Faults) -> None:
        known = {axis.name: [c.label for c in found] for _, axis, found in self.axes}
        for rule in rules:
            path = f"exclude.{rule.index}"
            before = len(faults.problems)
            if not rule.labels:
                faults.add(path, "names no labels", code="no-labels")
            for axis, labels in rule.labels.items():
                if axis not in known:
                    hint = f"there are {', '.join(known)}"
                    faults.add(
                        f"{path}.{axis}", f"{axis!r} is not an axis", hint, code="unknown-axis"
                    )
                    continue
                for label in labels:
                    if label not in known[axis]:
                        hint = f"there are {', '.join(known[axis])}"
                        faults.add(
                            f"{path}.{axis}",
                            f"{label!r} is not a label of {axis!r}",
                            hint,
                            code="unknown-label",
                        )
            rule.faulty = len(faults.problems) > before


class _Rule:
    """One entry of ``exclude``."""

    def __init__(self, index: int, rule: Mapping[str, str | list[str]]) -> None:
        self.index = index
        self.labels = {a: [v] if isinstance(v, str) else list(v) for a, v in rule.items()}
        self.used = False
        self.faulty = False

    def holds(self, labels: Mapping[str, str]) -> bool:
        found = bool(self.labels) and all(labels.get(a) in some for a, some in self.labels.items())
        self.used |= found
        return found


def make_grid(data: Mapping[str, Any], faults: Faults) -> CellGrid:
    """Read the axes of a sweep; what is wrong with the file is noted, and the rest is read.

    Args:
        data: the JSON data of the sweep.
        faults: where faults are noted.
    """
    grid = CellGrid(None)
    try:
        grid.spec = SweepSpec.model_validate(data)
    except ValidationError as error:
        grid.broken = True
        for problem in problems_of(error, data, ""):
            faults.add(problem.path, problem.message, problem.hint, code=problem.code)
    raw = data.get("axes")
    taken: set[str] = set()
    for index, row in enumerate(raw if isinstance(raw, list) else ()):
        try:
            axis = AxisSpec.model_validate(row)
        except ValidationError:
            continue  # reported with the whole
        if axis.name in taken:
            faults.add(
                f"axes.{index}.name",
                f"{axis.name!r} is the name of another axis already",
                code="name-taken",
            )
            grid.broken = True
            continue
        taken.add(axis.name)
        alternatives = _alternatives(index, axis, grid, faults)
        if alternatives:
            grid.axes.append((index, axis, alternatives))
    return grid


def _alternatives(index: int, axis: AxisSpec, grid: CellGrid, faults: Faults) -> list[Alternative]:
    found: dict[str, Alternative] = {}
    for place, alternative in axis.alternatives():
        path = f"axes.{index}.{place}"
        if isinstance(alternative, str):
            faults.add(path, alternative, code="value")
            grid.broken = True
        elif alternative.label in found:
            label = alternative.label
            faults.add(
                path,
                f"has the label {label!r}, as another value of the axis has",
                code="label-taken",
            )
            grid.broken = True
        else:
            found[alternative.label] = alternative
    return list(found.values())


def _config_of(place: tuple[str, ...]) -> tuple[str, ...] | None:
    """Where the config stands that goes with a kind."""
    return (*place[:-1], "config") if place[-1] in ("kind", "source") else None


def _listed(labels: Mapping[str, str]) -> str:
    return "(" + ", ".join(f"{axis}={label}" for axis, label in labels.items()) + ")"
