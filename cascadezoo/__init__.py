"""cascadezoo: image generators made of stages, and a zoo of them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from cascadezoo.build import build_cascade as build_cascade
    from cascadezoo.cascade import Cascade as Cascade
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
    from cascadezoo.hookspecs import hookimpl as hookimpl
    from cascadezoo.registry import DataEntry as DataEntry
    from cascadezoo.registry import FeatureEntry as FeatureEntry
    from cascadezoo.registry import LossEntry as LossEntry
    from cascadezoo.registry import MetricEntry as MetricEntry
    from cascadezoo.registry import StageEntry as StageEntry
    from cascadezoo.registry import ZooEntry as ZooEntry
    from cascadezoo.spec import CascadeSpec as CascadeSpec
    from cascadezoo.spec import load_spec as load_spec
    from cascadezoo.stages.base import Loss as Loss
    from cascadezoo.stages.base import SampleRequest as SampleRequest
    from cascadezoo.stages.base import Stage as Stage
    from cascadezoo.stages.base import StageGeometry as StageGeometry
    from cascadezoo.stages.base import StageInputs as StageInputs
    from cascadezoo.stages.base import StageOutput as StageOutput
    from cascadezoo.stages.base import TrainContext as TrainContext

__all__ = [
    "Cascade",
    "CascadeSpec",
    "CascadezooError",
    "ConfigProblem",
    "DataConfig",
    "DataEntry",
    "DataInfo",
    "DecoderConfig",
    "Draw",
    "EmptyConfig",
    "FeatureEntry",
    "GeneratorConfig",
    "ImageData",
    "ImageDraw",
    "ImageShape",
    "Loss",
    "LossEntry",
    "MetricEntry",
    "Model",
    "RefinerConfig",
    "SampleRequest",
    "Stage",
    "StageConfig",
    "StageEntry",
    "StageGeometry",
    "StageInputs",
    "StageOutput",
    "TrainContext",
    "UpsamplerConfig",
    "ZooEntry",
    "__version__",
    "build_cascade",
    "hookimpl",
    "load_spec",
]

# Where each public name lives; imported when it is first used, so that torch is not before.
_HOMES = {
    "Cascade": "cascade",
    "CascadeSpec": "spec",
    "CascadezooError": "errors",
    "ConfigProblem": "configs",
    "DataConfig": "configs",
    "DataEntry": "registry",
    "DataInfo": "configs",
    "DecoderConfig": "configs",
    "Draw": "draws",
    "EmptyConfig": "configs",
    "FeatureEntry": "registry",
    "GeneratorConfig": "configs",
    "ImageData": "data.base",
    "ImageDraw": "draws",
    "ImageShape": "configs",
    "Loss": "stages.base",
    "LossEntry": "registry",
    "MetricEntry": "registry",
    "Model": "configs",
    "RefinerConfig": "configs",
    "SampleRequest": "stages.base",
    "Stage": "stages.base",
    "StageConfig": "configs",
    "StageEntry": "registry",
    "StageGeometry": "stages.base",
    "StageInputs": "stages.base",
    "StageOutput": "stages.base",
    "TrainContext": "stages.base",
    "UpsamplerConfig": "configs",
    "ZooEntry": "registry",
    "build_cascade": "build",
    "hookimpl": "hookspecs",
    "load_spec": "spec",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
