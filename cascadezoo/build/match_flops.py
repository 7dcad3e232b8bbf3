"""Scales the steps of a training to a given number of FLOPs.

Comparing cascades of different shapes requires trainings of equal cost. The cost is that of
``cascadezoo plan``, counted on the meta device.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

from cascadezoo.build.plan import Plan, make_plan
from cascadezoo.errors import InputError
from cascadezoo.spec import ResolvedSpec, load_spec

__all__ = ["MOST_FLOPS", "TOLERANCE", "match_flops", "steps_between", "training_flops"]

TOLERANCE = 0.02
"""Largest relative difference between the nearest and the requested number of FLOPs."""

MOST_FLOPS = 1e30
"""Largest number that can be requested: more than any training has used."""


def match_flops(data: Mapping[str, Any], flops: float) -> dict[str, Any]:
    """Scale the steps of all phases by one factor to a given number of training FLOPs.

    The ratio of the phases' steps stays, up to rounding to whole steps. Nothing else changes:
    ``warmup_steps`` of a schedule, for example, is a number of its own.

    Args:
        data: JSON data of a valid spec whose phases all have ``steps``.
        flops: the requested FLOPs of the whole training, as :func:`training_flops` counts them.

    Returns:
        A copy of the data with new ``steps`` in its phases.

    Raises:
        InputError: the number is not positive and finite, a phase has epochs, nothing is trained
            or cannot be traced, or the nearest number differs by more than 2 %.
        SpecError: the data do not validate.
    """
    if not 1 <= flops <= MOST_FLOPS:
        raise InputError(
            f"cannot match {flops:g} FLOPs",
            hint=f"give a number from 1 to {MOST_FLOPS:g}",
            code="input-match-flops-invalid",
            flops=flops,
        )
    resolved = load_spec(data)
    plan = _plan(resolved)
    now = plan.total_flops or math.inf
    phases = resolved.spec.training.phases or []
    steps = [max(1, round((phase.steps or 0) * flops / now)) for phase in phases]
    nearest = plan.with_steps(steps).total_flops or math.inf
    if abs(nearest - flops) > TOLERANCE * flops:
        listed = ", ".join(f"{p.name} {n}" for p, n in zip(phases, steps, strict=True))
        raise InputError(
            f"{resolved.spec.name} cannot train for about {flops:.4g} FLOPs: the nearest number is "
            f"{nearest:.4g} (steps: {listed})",
            hint="request more, or lower training.batch_size",
            code="input-match-flops-unreachable",
            flops=flops,
            nearest=nearest,
        )
    result: dict[str, Any] = copy.deepcopy(resolved.spec.to_dict())
    for phase, count in zip(result["training"]["phases"], steps, strict=True):
        phase["steps"] = count
    return result


def training_flops(resolved: ResolvedSpec) -> float:
    """FLOPs of a training: forward and backward passes of each trained stage and image.

    Frozen stages are left out.

    Args:
        resolved: a spec whose phases all have ``steps``.

    Raises:
        InputError: a phase has epochs, nothing is trained, or a trained stage cannot be traced.
    """
    return _plan(resolved).total_flops or 0.0


def _plan(resolved: ResolvedSpec) -> Plan:
    """A plan whose training has a number of FLOPs above 0."""
    name = resolved.spec.name
    for phase in resolved.spec.training.phases or []:
        if phase.steps is None:
            raise InputError(
                f"phase {phase.name!r} of {name} has epochs, whose FLOPs depend on the data",
                hint=f"set training.phases.{phase.name}.steps in place of epochs",
                code="input-match-flops-epochs",
                name=phase.name,
            )
    plan = make_plan(resolved, "cpu")
    if plan.phases and plan.total_flops is None:
        raise InputError(
            f"the FLOPs of {name} are unknown, because a trained stage cannot be traced",
            hint=f"see the warnings of: cascadezoo plan {name}",
            code="input-match-flops-untraced",
            name=name,
        )
    if not plan.total_flops:
        raise InputError(
            f"the training of {name} has no FLOPs to match",
            hint="add a phase that trains a stage with convolutions or linear layers",
            code="input-match-flops-none",
            name=name,
        )
    return plan


def steps_between(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return the ``--set`` settings that change the steps of ``before`` to those of ``after``.

    Args:
        before: JSON data of a resolved spec.
        after: the result of :func:`match_flops` for it.
    """
    rows = zip(before["training"]["phases"], after["training"]["phases"], strict=True)
    return [
        f"training.phases.{new['name']}.steps={new['steps']}"
        for old, new in rows
        if old["steps"] != new["steps"]
    ]
