"""Specs: models, reading, late validation, JSON Schema. Free of torch.

A file or a dict enters; a resolved spec with all defaults leaves, or an error with all of its
problems. ``presets/`` contains the specs that ship with the package.
"""

from cascadezoo.spec.files import (
    apply_settings,
    complete,
    parse_json,
    read_spec,
    shipped_specs,
)
from cascadezoo.spec.models import (
    CallbackSpec,
    CascadeSpec,
    DataSpec,
    EmaSpec,
    EvaluationSpec,
    GroupTraining,
    InLoopSpec,
    LossSpec,
    OptimizerSpec,
    PhaseSpec,
    PublishSpec,
    ReflowSpec,
    ScheduleSpec,
    StageSpec,
    StageTraining,
    TeacherForcing,
    TrainingSpec,
)
from cascadezoo.spec.resolution import ResolvedSpec, ResolvedStage, load_spec, resolve

__all__ = [
    "CallbackSpec",
    "CascadeSpec",
    "DataSpec",
    "EmaSpec",
    "EvaluationSpec",
    "GroupTraining",
    "InLoopSpec",
    "LossSpec",
    "OptimizerSpec",
    "PhaseSpec",
    "PublishSpec",
    "ReflowSpec",
    "ResolvedSpec",
    "ResolvedStage",
    "ScheduleSpec",
    "StageSpec",
    "StageTraining",
    "TeacherForcing",
    "TrainingSpec",
    "apply_settings",
    "complete",
    "load_spec",
    "parse_json",
    "read_spec",
    "resolve",
    "shipped_specs",
]
