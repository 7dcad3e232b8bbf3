"""The phases that a spec gets when it names none, and how a phase differs from the training."""

from __future__ import annotations

from typing import TypeVar

from cascadezoo.spec.models import OptimizerSpec, PhaseSpec, ScheduleSpec, TeacherForcing

__all__ = ["default_phases", "override"]


def default_phases(names: list[str]) -> list[PhaseSpec]:
    """The study's three phases; a lone generator has only the first."""
    coarse = PhaseSpec(name="coarse", train=names[:1], epochs=35)
    if len(names) < 2:
        return [coarse]
    falling = TeacherForcing(start=0.9, end=0.1)
    ending = TeacherForcing(start=0.1, end=0.0)
    return [
        coarse,
        PhaseSpec(name="cascade", train=names[1:], epochs=35, teacher_forcing=falling),
        PhaseSpec(name="joint", train=names, epochs=30, joint=True, teacher_forcing=ending),
    ]


S = TypeVar("S", OptimizerSpec, ScheduleSpec)


def override(base: S, differing: S | None) -> S:
    """``base`` with what the spec writes out in ``differing``."""
    if differing is None:
        return base
    changed = {name: getattr(differing, name) for name in differing.model_fields_set}
    return base.model_copy(update=changed)
