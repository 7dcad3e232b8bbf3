"""cascadezoo: image generators made of stages, and a zoo of them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from cascadezoo.build import build_cascade as build_cascade
    from cascadezoo.cascade import Cascade as Cascade
    from cascadezoo.checking import check_model as check_model
    from cascadezoo.configs import ConfigProblem as ConfigProblem
    from cascadezoo.configs import DataConfig as DataConfig
    from cascadezoo.configs import DataInfo as DataInfo
    from cascadezoo.configs import DecoderConfig as DecoderConfig
    from cascadezoo.configs import EmptyConfig as EmptyConfig
    from cascadezoo.configs import GeneratorConfig as GeneratorConfig
    from cascadezoo.configs import ImageShape as ImageShape
    from cascadezoo.configs import Model as Model
    from cascadezoo.configs import RefinerConfig as RefinerConfig
    from cascadezoo.configs import StageConfig as StageConfig
    from cascadezoo.configs import UpsamplerConfig as UpsamplerConfig
    from cascadezoo.data.base import ImageData as ImageData
    from cascadezoo.draws import Draw as Draw
    from cascadezoo.draws import ImageDraw as ImageDraw
    from cascadezoo.errors import CascadezooError as CascadezooError
    from cascadezoo.evaluate.features import FeatureExtractor as FeatureExtractor
    from cascadezoo.evaluate.metrics import Measured as Measured
    from cascadezoo.evaluate.metrics import MetricCascade as MetricCascade
    from cascadezoo.evaluate.metrics import MetricFeatures as MetricFeatures
    from cascadezoo.hookspecs import hookimpl as hookimpl
    from cascadezoo.measuring import evaluate_model as evaluate_model
    from cascadezoo.registry import CallbackEntry as CallbackEntry
    from cascadezoo.registry import CascadezooDeprecationWarning as CascadezooDeprecationWarning
    from cascadezoo.registry import CommandEntry as CommandEntry
    from cascadezoo.registry import DataEntry as DataEntry
    from cascadezoo.registry import FeatureEntry as FeatureEntry
    from cascadezoo.registry import LossEntry as LossEntry
    from cascadezoo.registry import MetricEntry as MetricEntry
    from cascadezoo.registry import StageEntry as StageEntry
    from cascadezoo.registry import ZooEntry as ZooEntry
    from cascadezoo.spec import CascadeSpec as CascadeSpec
    from cascadezoo.spec import load_spec as load_spec
    from cascadezoo.stages.base import GroupOptions as GroupOptions
    from cascadezoo.stages.base import Loss as Loss
    from cascadezoo.stages.base import SampleRequest as SampleRequest
    from cascadezoo.stages.base import Stage as Stage
    from cascadezoo.stages.base import StageGeometry as StageGeometry
    from cascadezoo.stages.base import StageInputs as StageInputs
    from cascadezoo.stages.base import StageOutput as StageOutput
    from cascadezoo.stages.base import TrainContext as TrainContext
    from cascadezoo.sweep.cells import load_sweep as load_sweep
    from cascadezoo.sweep.run import run_sweep as run_sweep
    from cascadezoo.train.callbacks import Callback as Callback
    from cascadezoo.train.callbacks import EpochEvent as EpochEvent
    from cascadezoo.train.callbacks import FigureEvent as FigureEvent
    from cascadezoo.train.callbacks import PhaseEvent as PhaseEvent
    from cascadezoo.train.callbacks import StepEvent as StepEvent
    from cascadezoo.train.callbacks import TrainingRun as TrainingRun

__all__ = [
    "Callback",
    "CallbackEntry",
    "Cascade",
    "CascadeSpec",
    "CascadezooDeprecationWarning",
    "CascadezooError",
    "CommandEntry",
    "ConfigProblem",
    "DataConfig",
    "DataEntry",
    "DataInfo",
    "DecoderConfig",
    "Draw",
    "EmptyConfig",
    "EpochEvent",
    "FeatureEntry",
    "FeatureExtractor",
    "FigureEvent",
    "GeneratorConfig",
    "GroupOptions",
    "ImageData",
    "ImageDraw",
    "ImageShape",
    "Loss",
    "LossEntry",
    "Measured",
    "MetricCascade",
    "MetricEntry",
    "MetricFeatures",
    "Model",
    "PhaseEvent",
    "RefinerConfig",
    "SampleRequest",
    "Stage",
    "StageConfig",
    "StageEntry",
    "StageGeometry",
    "StageInputs",
    "StageOutput",
    "StepEvent",
    "TrainContext",
    "TrainingRun",
    "UpsamplerConfig",
    "ZooEntry",
    "__version__",
    "build_cascade",
    "check_model",
    "evaluate_model",
    "hookimpl",
    "load_spec",
    "load_sweep",
    "run_sweep",
]

# Where each public name lives; imported when it is first used, so that torch is not before.
_HOMES = {
    "Callback": "train.callbacks",
    "CallbackEntry": "registry",
    "Cascade": "cascade",
    "CascadeSpec": "spec",
    "CascadezooDeprecationWarning": "registry",
    "CascadezooError": "errors",
    "CommandEntry": "registry",
    "ConfigProblem": "configs",
    "DataConfig": "configs",
    "DataEntry": "registry",
    "DataInfo": "configs",
    "DecoderConfig": "configs",
    "Draw": "draws",
    "EmptyConfig": "configs",
    "EpochEvent": "train.callbacks",
    "FeatureEntry": "registry",
    "FeatureExtractor": "evaluate.features",
    "FigureEvent": "train.callbacks",
    "GeneratorConfig": "configs",
    "GroupOptions": "stages.base",
    "ImageData": "data.base",
    "ImageDraw": "draws",
    "ImageShape": "configs",
    "Loss": "stages.base",
    "LossEntry": "registry",
    "Measured": "evaluate.metrics",
    "MetricCascade": "evaluate.metrics",
    "MetricEntry": "registry",
    "MetricFeatures": "evaluate.metrics",
    "Model": "configs",
    "PhaseEvent": "train.callbacks",
    "RefinerConfig": "configs",
    "SampleRequest": "stages.base",
    "Stage": "stages.base",
    "StageConfig": "configs",
    "StageEntry": "registry",
    "StageGeometry": "stages.base",
    "StageInputs": "stages.base",
    "StageOutput": "stages.base",
    "StepEvent": "train.callbacks",
    "TrainContext": "stages.base",
    "TrainingRun": "train.callbacks",
    "UpsamplerConfig": "configs",
    "ZooEntry": "registry",
    "build_cascade": "build",
    "check_model": "checking",
    "evaluate_model": "measuring",
    "hookimpl": "hookspecs",
    "load_spec": "spec",
    "load_sweep": "sweep.cells",
    "run_sweep": "sweep.run",
}


# Public names of before: what each is called now. They last as long as the level of the API.
_RENAMED: dict[str, str] = {}


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        from cascadezoo.registry import deprecated

        deprecated(f"{__name__}.{name}", f"use {__name__}.{_RENAMED[name]}")
        name = _RENAMED[name]
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
