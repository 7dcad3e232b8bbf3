"""Plans of cells on the meta device: their parameters, and whether they fit into memory."""

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
    """Plan each cell. Cells that differ only in keys that do not affect a plan share one.

    Args:
        cells: the cells of a sweep.
        device: the device whose memory limits them.
        memory: check whether they fit into memory.

    Returns:
        The plans by cell name.

    Raises:
        SpecError: cells cannot be built; the error lists all of them.
        InputError: the device does not exist.
    """
    home = pick_device(device)
    plans: dict[str, Plan] = {}
    known: dict[str, Plan | CascadezooError] = {}
    problems = []
    for cell in cells:
        planned = {key: value for key, value in cell.spec.items() if key not in _UNPLANNED}
        key = json.dumps(planned, sort_keys=True)
        if key not in known:
            try:
                plan = make_plan(resolve(cell.spec, source=cell.name), home)
                if memory:
                    check_memory(plan)
                known[key] = plan
            except InputError as error:
                problems.append(
                    Problem(f"cell {cell.name}", error.what, error.hint, code=error.code)
                )
                known[key] = error
        plan_or_error = known[key]
        if isinstance(plan_or_error, Plan):
            plans[cell.name] = plan_or_error
    if problems:
        raise SpecError(problems, source="sweep")
    return plans


_UNPLANNED = frozenset({"name", "description", "tags", "license", "seed", "evaluation", "publish"})
