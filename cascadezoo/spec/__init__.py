"""Specs: models, reading, late validation, JSON Schema. Free of torch."""

from cascadezoo.spec.files import apply_settings, parse_json, read_spec, shipped_specs
from cascadezoo.spec.models import (
    CascadeSpec,
    DataSpec,
    EmaSpec,
    EvaluationSpec,
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
from cascadezoo.spec.resolve import ResolvedSpec, ResolvedStage, load_spec, resolve

__all__ = [
    "CascadeSpec",
    "DataSpec",
    "EmaSpec",
    "EvaluationSpec",
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
    "load_spec",
    "parse_json",
    "read_spec",
    "resolve",
    "shipped_specs",
]
