"""The grid of a sweep: its axes, their alternatives, and the rows that are not excluded."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from cascadezoo.errors import Problem
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
    """The valid axes of a sweep.

    Args:
        spec: the whole sweep; None if it does not validate.
        axes: index in the file, axis and alternatives of each valid axis.
        broken: whether a fault prevents its cells from being made.
    """

    spec: SweepSpec | None
    axes: list[tuple[int, AxisSpec, list[Alternative]]] = field(default_factory=list)
    broken: bool = False
    _places: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _rows: list[tuple[str, Row]] = field(default_factory=list)

    def place(self, axis: AxisSpec) -> tuple[str, ...]:
        """The steps of an axis's path; available after :meth:`check_paths`."""
        return self._places[axis.name]

    def labels(self) -> list[dict[str, str]]:
        """The labels of every row that :meth:`rows` yields."""
        return [{axis: chosen.label for axis, chosen in row.items()} for _, row in self._rows]

    def check_paths(self, tree: dict[str, Any], faults: Faults) -> None:
        """Note paths that do not exist in the base, and places that are set twice.

        Args:
            tree: the resolved base.
            faults: collects them.
        """
        requested: list[tuple[str, str, str]] = []  # place in the file, what sets it, the path
        for index, axis, alternatives in self.axes:
            self._places[axis.name] = canonical(tree, axis.path)
            requested.append((f"axes.{index}.path", f"axis {axis.name!r}", axis.path))
            for chosen in alternatives:
                self._check_name(index, axis, chosen, tree, faults)
                where = f"axes.{index}.values.{chosen.label}.settings"
                by = f"{axis.name}={chosen.label}"
                requested += [(f"{where}.{path}", by, path) for path in chosen.settings]
        replaced = [place for place in self._places.values() if place]
        for where, by, path in requested:
            place = canonical(tree, path)
            # The base does not determine the content of a replaced part, nor the config of a
            # replaced kind.
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
                    f"{path!r} does not exist in the base spec: {fault}",
                    hint,
                    code="unknown-path",
                )
                self._remove(by, path)
        self._check_twice(tree, requested, faults)

    def rows(self, faults: Faults) -> Iterator[tuple[str, Row]]:
        """Name and alternatives of every cell, in the order of the axes.

        Notes too many cells, names that two cells share and excludes that match nothing before
        it yields the first row. Yields the valid rows of a broken grid too, so that one error
        lists the faults of the grid and of the cells.
        """
        if not self.axes:
            return  # each has a fault
        count = math.prod(len(alternatives) for *_, alternatives in self.axes)
        if count > MOST_CELLS:
            sizes = " x ".join(str(len(alternatives)) for *_, alternatives in self.axes)
            faults.add(
                "axes",
                f"{sizes} = {count:,} cells are more than {MOST_CELLS:,}",
                "remove values, or split the sweep",
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
            # Not any(): every rule records whether it matched.
            if sum(rule.matches(labels) for rule in rules):
                continue
            name = label_text(labels)
            if name in seen and not self.broken:
                listed = " and ".join(_listed(both) for both in (seen[name], labels))
                hint = "change a label of one of them"
                faults.add(
                    "axes",
                    f"two cells have the name {name!r}: {listed}",
                    hint,
                    code="cell-name-taken",
                )
            seen[name] = labels
            rows.append((name, row))
        for rule in rules:
            if not (rule.used or rule.faulty or self.broken):
                message = "excludes nothing: no cell has these labels"
                faults.add(f"exclude.{rule.index}", message, code="excludes-nothing")
        if not rows and not self.broken:
            faults.add("exclude", "excludes every cell", code="excludes-all")
        self._rows = rows
        yield from rows

    def _check_name(
        self, index: int, axis: AxisSpec, chosen: Alternative, tree: Any, faults: Faults
    ) -> None:
        """A stage keeps its name, because phases and losses refer to it."""
        place = self._places[axis.name]
        if not chosen.stage or "name" not in chosen.value or fault_of(tree, axis.path):
            return
        name = tree["stages"][int(place[1])]["name"]
        if chosen.value["name"] != name:
            where = f"axes.{index}.values.{chosen.label}.name"
            message = f"is {chosen.value['name']!r}, but the stage must keep its name {name!r}"
            faults.add(where, message, "remove the name", code="stage-renamed")
            self.broken = True

    def _remove(self, by: str, path: str) -> None:
        """Remove an axis, or the alternative whose settings have a fault."""
        self.broken = True
        self.axes = [
            (index, axis, left)
            for index, axis, chosen in self.axes
            if axis.path != path and (left := [c for c in chosen if f"{axis.name}={c.label}" != by])
        ]

    def _check_twice(
        self, tree: Any, requested: list[tuple[str, str, str]], faults: Faults
    ) -> None:
        first: dict[tuple[str, ...], str] = {}
        for where, by, path in requested:
            place = canonical(tree, path)
            other = first.setdefault(place, by)
            same_axis = other.partition("=")[0] == by.partition("=")[0] and "=" in by
            if other != by and not same_axis:
                faults.add(where, f"{path!r} is already set by {other}", code="set-twice")
                self.broken = True

    def _check_rules(self, rules: list[_Rule], faults: Faults) -> None:
        known = {axis.name: [c.label for c in chosen] for _, axis, chosen in self.axes}
        for rule in rules:
            path = f"exclude.{rule.index}"
            before = len(faults.problems)
            if not rule.labels:
                faults.add(path, "has no labels", code="no-labels")
            for axis, labels in rule.labels.items():
                if axis not in known:
                    hint = f"use one of {', '.join(known)}"
                    faults.add(
                        f"{path}.{axis}", f"{axis!r} is not an axis", hint, code="unknown-axis"
                    )
                    continue
                for label in labels:
                    if label not in known[axis]:
                        hint = f"use one of {', '.join(known[axis])}"
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

    def matches(self, labels: Mapping[str, str]) -> bool:
        match = bool(self.labels) and all(labels.get(a) in some for a, some in self.labels.items())
        self.used |= match
        return match


def make_grid(data: Mapping[str, Any], faults: Faults) -> CellGrid:
    """Read the axes of a sweep. Notes the faults of the file and reads the rest.

    Args:
        data: the JSON data of the sweep.
        faults: collects the faults.
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
                f"another axis has the name {axis.name!r}",
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
    by_label: dict[str, Alternative] = {}
    for place, alternative in axis.alternatives():
        path = f"axes.{index}.{place}"
        if isinstance(alternative, Problem):
            faults.add(path, alternative.message, code=alternative.code)
            grid.broken = True
        elif alternative.label in by_label:
            label = alternative.label
            faults.add(
                path,
                f"another value of the axis has the label {label!r}",
                code="label-taken",
            )
            grid.broken = True
        else:
            by_label[alternative.label] = alternative
    return list(by_label.values())


def _config_of(place: tuple[str, ...]) -> tuple[str, ...] | None:
    """The place of the config that belongs to a kind."""
    return (*place[:-1], "config") if place[-1] in ("kind", "source") else None


def _listed(labels: Mapping[str, str]) -> str:
    return "(" + ", ".join(f"{axis}={label}" for axis, label in labels.items()) + ")"
