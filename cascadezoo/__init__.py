"""cascadezoo: image generators built from stages, and a zoo of trained models.

:func:`build_cascade` trains a cascade from a spec. :class:`Cascade` loads a model and samples from
it. Public names are imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cascadezoo._version import __version__ as __version__

if TYPE_CHECKING:
    from cascadezoo.build.build import build_cascade as build_cascade
    from cascadezoo.cascade.cascade import Cascade as Cascade
    from cascadezoo.data.base import ImageData as ImageData
    from cascadezoo.data.source import ImageSource as ImageSource
    from cascadezoo.demo.serve import launch_demo as launch_demo
    from cascadezoo.errors import CascadezooError as CascadezooError
    from cascadezoo.evaluate.check_model import check_model as check_model
    from cascadezoo.evaluate.evaluate_model import evaluate_model as evaluate_model
    from cascadezoo.evaluate.features.base import FeatureExtractor as FeatureExtractor
    from cascadezoo.evaluate.metrics.base import Measured as Measured
    from cascadezoo.evaluate.metrics.base import MetricCascade as MetricCascade
    from cascadezoo.evaluate.metrics.base import MetricFeatures as MetricFeatures
    from cascadezoo.evaluate.samples import Samples as Samples
    from cascadezoo.model_folder.recipe import Recipe as Recipe
    from cascadezoo.model_folder.recipe import read_recipe as read_recipe
    from cascadezoo.plugins.hookspecs import hookimpl as hookimpl
    from cascadezoo.plugins.registry import CallbackEntry as CallbackEntry
    from cascadezoo.plugins.registry import (
        CascadezooDeprecationWarning as CascadezooDeprecationWarning,
    )
    from cascadezoo.plugins.registry import CommandEntry as CommandEntry
    from cascadezoo.plugins.registry import DataEntry as DataEntry
    from cascadezoo.plugins.registry import FeatureEntry as FeatureEntry
    from cascadezoo.plugins.registry import LossEntry as LossEntry
    from cascadezoo.plugins.registry import MetricEntry as MetricEntry
    from cascadezoo.plugins.registry import SpecEntry as SpecEntry
    from cascadezoo.plugins.registry import StageEntry as StageEntry
    from cascadezoo.plugins.registry import ZooEntry as ZooEntry
    from cascadezoo.spec import CascadeSpec as CascadeSpec
    from cascadezoo.spec import load_spec as load_spec
    from cascadezoo.spec.configs import ConfigError as ConfigError
    from cascadezoo.spec.configs import DataConfig as DataConfig
    from cascadezoo.spec.configs import DataInfo as DataInfo
    from cascadezoo.spec.configs import DecoderConfig as DecoderConfig
    from cascadezoo.spec.configs import EmptyConfig as EmptyConfig
    from cascadezoo.spec.configs import GeneratorConfig as GeneratorConfig
    from cascadezoo.spec.configs import ImageShape as ImageShape
    from cascadezoo.spec.configs import MeasurementPlan as MeasurementPlan
    from cascadezoo.spec.configs import MetricConfig as MetricConfig
    from cascadezoo.spec.configs import Model as Model
    from cascadezoo.spec.configs import Option as Option
    from cascadezoo.spec.configs import RefinerConfig as RefinerConfig
    from cascadezoo.spec.configs import StageConfig as StageConfig
    from cascadezoo.spec.configs import UpsamplerConfig as UpsamplerConfig
    from cascadezoo.stages.base import Edit as Edit
    from cascadezoo.stages.base import GroupOptions as GroupOptions
    from cascadezoo.stages.base import Loss as Loss
    from cascadezoo.stages.base import SampleRequest as SampleRequest
    from cascadezoo.stages.base import Stage as Stage
    from cascadezoo.stages.base import StageGeometry as StageGeometry
    from cascadezoo.stages.base import StageInputs as StageInputs
    from cascadezoo.stages.base import StageOutput as StageOutput
    from cascadezoo.stages.base import StepContext as StepContext
    from cascadezoo.stages.base import TrainContext as TrainContext
    from cascadezoo.sweep.cells import load_sweep as load_sweep
    from cascadezoo.sweep.run_sweep import run_sweep as run_sweep
    from cascadezoo.train.callbacks import Callback as Callback
    from cascadezoo.train.callbacks import EpochEvent as EpochEvent
    from cascadezoo.train.callbacks import FigureEvent as FigureEvent
    from cascadezoo.train.callbacks import ModelEvent as ModelEvent
    from cascadezoo.train.callbacks import PhaseEvent as PhaseEvent
    from cascadezoo.train.callbacks import SamplesEvent as SamplesEvent
    from cascadezoo.train.callbacks import StepEvent as StepEvent
    from cascadezoo.train.callbacks import TrainingRun as TrainingRun
    from cascadezoo.train.trackers import TensorBoardTracker as TensorBoardTracker
    from cascadezoo.train.trackers import TrackioTracker as TrackioTracker
    from cascadezoo.train.trackers import WandbTracker as WandbTracker
    from cascadezoo.util.rng import Draw as Draw
    from cascadezoo.util.rng import ImageDraw as ImageDraw

__all__ = [
    "Callback",
    "CallbackEntry",
    "Cascade",
    "CascadeSpec",
    "CascadezooDeprecationWarning",
    "CascadezooError",
    "CommandEntry",
    "ConfigError",
    "DataConfig",
    "DataEntry",
    "DataInfo",
    "DecoderConfig",
    "Draw",
    "Edit",
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
    "ImageSource",
    "Loss",
    "LossEntry",
    "Measured",
    "MeasurementPlan",
    "MetricCascade",
    "MetricConfig",
    "MetricEntry",
    "MetricFeatures",
    "Model",
    "ModelEvent",
    "Option",
    "PhaseEvent",
    "Recipe",
    "RefinerConfig",
    "SampleRequest",
    "Samples",
    "SamplesEvent",
    "SpecEntry",
    "Stage",
    "StageConfig",
    "StageEntry",
    "StageGeometry",
    "StageInputs",
    "StageOutput",
    "StepContext",
    "StepEvent",
    "TensorBoardTracker",
    "TrackioTracker",
    "TrainContext",
    "TrainingRun",
    "UpsamplerConfig",
    "WandbTracker",
    "ZooEntry",
    "__version__",
    "build_cascade",
    "check_model",
    "evaluate_model",
    "hookimpl",
    "launch_demo",
    "load_spec",
    "load_sweep",
    "read_recipe",
    "run_sweep",
]

# The module of each public name. Names are imported on first use: importing cascadezoo does not
# import torch.
_MODULES = {
    "Callback": "train.callbacks",
    "CallbackEntry": "plugins.registry",
    "Cascade": "cascade.cascade",
    "CascadeSpec": "spec",
    "CascadezooDeprecationWarning": "plugins.registry",
    "CascadezooError": "errors",
    "CommandEntry": "plugins.registry",
    "ConfigError": "spec.configs",
    "DataConfig": "spec.configs",
    "DataEntry": "plugins.registry",
    "DataInfo": "spec.configs",
    "DecoderConfig": "spec.configs",
    "Draw": "util.rng",
    "Edit": "stages.base",
    "EmptyConfig": "spec.configs",
    "EpochEvent": "train.callbacks",
    "FeatureEntry": "plugins.registry",
    "FeatureExtractor": "evaluate.features.base",
    "FigureEvent": "train.callbacks",
    "GeneratorConfig": "spec.configs",
    "GroupOptions": "stages.base",
    "ImageData": "data.base",
    "ImageSource": "data.source",
    "ImageDraw": "util.rng",
    "ImageShape": "spec.configs",
    "Loss": "stages.base",
    "LossEntry": "plugins.registry",
    "Measured": "evaluate.metrics.base",
    "MetricCascade": "evaluate.metrics.base",
    "MeasurementPlan": "spec.configs",
    "MetricConfig": "spec.configs",
    "MetricEntry": "plugins.registry",
    "MetricFeatures": "evaluate.metrics.base",
    "Model": "spec.configs",
    "ModelEvent": "train.callbacks",
    "Option": "spec.configs",
    "PhaseEvent": "train.callbacks",
    "Recipe": "model_folder.recipe",
    "RefinerConfig": "spec.configs",
    "SampleRequest": "stages.base",
    "Samples": "evaluate.samples",
    "SamplesEvent": "train.callbacks",
    "SpecEntry": "plugins.registry",
    "Stage": "stages.base",
    "StageConfig": "spec.configs",
    "StageEntry": "plugins.registry",
    "StageGeometry": "stages.base",
    "StageInputs": "stages.base",
    "StageOutput": "stages.base",
    "StepContext": "stages.base",
    "StepEvent": "train.callbacks",
    "TensorBoardTracker": "train.trackers",
    "TrackioTracker": "train.trackers",
    "TrainContext": "stages.base",
    "TrainingRun": "train.callbacks",
    "UpsamplerConfig": "spec.configs",
    "WandbTracker": "train.trackers",
    "ZooEntry": "plugins.registry",
    "build_cascade": "build.build",
    "check_model": "evaluate.check_model",
    "evaluate_model": "evaluate.evaluate_model",
    "hookimpl": "plugins.hookspecs",
    "launch_demo": "demo.serve",
    "load_spec": "spec",
    "load_sweep": "sweep.cells",
    "read_recipe": "model_folder.recipe",
    "run_sweep": "sweep.run_sweep",
}


# Former public names and their replacements. They stay until the API level rises.
_RENAMED: dict[str, str] = {"ConfigProblem": "ConfigError"}


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        from cascadezoo.plugins.registry import deprecated

        deprecated(f"{__name__}.{name}", f"use {__name__}.{_RENAMED[name]}")
        name = _RENAMED[name]
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
