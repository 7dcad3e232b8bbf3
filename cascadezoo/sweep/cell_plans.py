"""What cells would need, on the meta device: their parameters, and whether they fit."""

from __future__ import annotations

import json
from collections.abc import Sequence

from cascadezoo.build.plan import Plan, check_memory, make_plan
from cascadezoo.errors import CascadezooError, InputError, Problem, SpecError
from cascadezoo.spec import resolve
from cascadezoo.sweep.cells import Cell
from cascadezoo.train.engine import pick_device

__all__ = ["plan_cells"]


def plan_cells(
    cells: Sequence[Cell], *, device: str = "auto", memory: bool = True
) -> dict[str, Plan]:
    """The plan of each cell, by name; cells that differ in what no plan looks at share one.

    Args:
        cells: of a sweep.
        device: whose memory they are held against.
        memory: whether they are.

    Raises:
        SpecError: cells that cannot be built, all of them.
        InputError: there is no such device.
    """
    home = pick_device(device)
    plans: dict[str, Plan] = {}
    found: dict[str, Plan | CascadezooError] = {}
    problems = []
    for cell in cells:
        alike = {key: value for key, value in cell.spec.items() if key not in _UNPLANNED}
        key = json.dumps(alike, sort_keys=True)
        if key not in found:
            try:
                plan = make_plan(resolve(cell.spec, source=cell.name), home)
                if memory:
                    check_memory(plan)
                found[key] = plan
            except InputError as error:
                problems.append(
                    Problem(f"cell {cell.name}", error.what, error.hint, code=error.code)
                )
                found[key] = error
        plan_or_error = found[key]
        if isinstance(plan_or_error, Plan):
            plans[cell.name] = plan_or_error
    if problems:
        raise SpecError(problems, source="sweep")
    return plans


_UNPLANNED = frozenset({"name", "description", "tags", "license", "seed", "evaluation", "publish"})
