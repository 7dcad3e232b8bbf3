"""Every class of a spec, to write specs in Python with completion in editors.

The spec's own parts (``StageSpec``, ``DataSpec``, ``TrainingSpec``, ``PhaseSpec``, ...) and the
configs of the built-in stages, datasets, losses and trackers (``FlowConfig``, ``ShapesConfig``,
...). A plugin documents where its configs are. Names are imported on first use; no config imports
torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cascadezoo.data.fashion_tiny import FashionTinyConfig as FashionTinyConfig
    from cascadezoo.data.folder import FolderConfig as FolderConfig
    from cascadezoo.data.huggingface import HuggingFaceConfig as HuggingFaceConfig
    from cascadezoo.data.npz import NpzConfig as NpzConfig
    from cascadezoo.data.python_config import PythonConfig as PythonConfig
    from cascadezoo.data.shapes import ShapesConfig as ShapesConfig
    from cascadezoo.data.torchvision_sets import Cifar10Config as Cifar10Config
    from cascadezoo.data.torchvision_sets import FashionMnistConfig as FashionMnistConfig
    from cascadezoo.data.torchvision_sets import MnistConfig as MnistConfig
    from cascadezoo.data.webdataset import WebDatasetConfig as WebDatasetConfig
    from cascadezoo.spec.models import CallbackSpec as CallbackSpec
    from cascadezoo.spec.models import DataSpec as DataSpec
    from cascadezoo.spec.models import EmaSpec as EmaSpec
    from cascadezoo.spec.models import EvaluationSpec as EvaluationSpec
    from cascadezoo.spec.models import GroupTraining as GroupTraining
    from cascadezoo.spec.models import InLoopSpec as InLoopSpec
    from cascadezoo.spec.models import LossSpec as LossSpec
    from cascadezoo.spec.models import OptimizerSpec as OptimizerSpec
    from cascadezoo.spec.models import PhaseSpec as PhaseSpec
    from cascadezoo.spec.models import PublishSpec as PublishSpec
    from cascadezoo.spec.models import ReflowSpec as ReflowSpec
    from cascadezoo.spec.models import ScheduleSpec as ScheduleSpec
    from cascadezoo.spec.models import StageSpec as StageSpec
    from cascadezoo.spec.models import StageTraining as StageTraining
    from cascadezoo.spec.models import StreamSpec as StreamSpec
    from cascadezoo.spec.models import TeacherForcing as TeacherForcing
    from cascadezoo.spec.models import TrainingSpec as TrainingSpec
    from cascadezoo.stages.autoencoder.config import AutoencoderConfig as AutoencoderConfig
    from cascadezoo.stages.conv_refiner.config import ConvRefinerConfig as ConvRefinerConfig
    from cascadezoo.stages.dae.config import DAEConfig as DAEConfig
    from cascadezoo.stages.diffusion.config import DiffusionConfig as DiffusionConfig
    from cascadezoo.stages.diffusion.config import (
        PureNoiseDiffusionConfig as PureNoiseDiffusionConfig,
    )
    from cascadezoo.stages.diffusion_sr.config import DiffusionSRConfig as DiffusionSRConfig
    from cascadezoo.stages.dit.config import DiTConfig as DiTConfig
    from cascadezoo.stages.dit.config import DiTSRConfig as DiTSRConfig
    from cascadezoo.stages.flow.config import FlowConfig as FlowConfig
    from cascadezoo.stages.flow_sr.config import FlowResidualSRConfig as FlowResidualSRConfig
    from cascadezoo.stages.flow_sr.config import FlowSRConfig as FlowSRConfig
    from cascadezoo.stages.identity.config import IdentityConfig as IdentityConfig
    from cascadezoo.stages.interpolate.config import InterpolateConfig as InterpolateConfig
    from cascadezoo.stages.mean_flow.config import MeanFlowConfig as MeanFlowConfig
    from cascadezoo.stages.pixelshuffle.config import PixelShuffleConfig as PixelShuffleConfig
    from cascadezoo.stages.resnet.config import ResNetConfig as ResNetConfig
    from cascadezoo.stages.resnet_refiner.config import ResNetRefinerConfig as ResNetRefinerConfig
    from cascadezoo.stages.resnet_upsampler.config import (
        ResNetUpsamplerConfig as ResNetUpsamplerConfig,
    )
    from cascadezoo.stages.transposed.config import TransposedConfig as TransposedConfig
    from cascadezoo.stages.unet_diffusion.config import UNetDiffusionConfig as UNetDiffusionConfig
    from cascadezoo.stages.vit.config import ViTConfig as ViTConfig
    from cascadezoo.train.loss_configs import LpipsConfig as LpipsConfig
    from cascadezoo.train.tracker_configs import TensorBoardConfig as TensorBoardConfig
    from cascadezoo.train.tracker_configs import TrackioConfig as TrackioConfig
    from cascadezoo.train.tracker_configs import WandbConfig as WandbConfig

__all__ = [
    "AutoencoderConfig",
    "CallbackSpec",
    "Cifar10Config",
    "ConvRefinerConfig",
    "DAEConfig",
    "DataSpec",
    "DiTConfig",
    "DiTSRConfig",
    "DiffusionConfig",
    "DiffusionSRConfig",
    "EmaSpec",
    "EvaluationSpec",
    "FashionMnistConfig",
    "FashionTinyConfig",
    "FlowConfig",
    "FlowResidualSRConfig",
    "FlowSRConfig",
    "FolderConfig",
    "GroupTraining",
    "HuggingFaceConfig",
    "IdentityConfig",
    "InLoopSpec",
    "InterpolateConfig",
    "LossSpec",
    "LpipsConfig",
    "MeanFlowConfig",
    "MnistConfig",
    "NpzConfig",
    "OptimizerSpec",
    "PhaseSpec",
    "PixelShuffleConfig",
    "PublishSpec",
    "PureNoiseDiffusionConfig",
    "PythonConfig",
    "ReflowSpec",
    "ResNetConfig",
    "ResNetRefinerConfig",
    "ResNetUpsamplerConfig",
    "ScheduleSpec",
    "ShapesConfig",
    "StageSpec",
    "StageTraining",
    "StreamSpec",
    "TeacherForcing",
    "TensorBoardConfig",
    "TrackioConfig",
    "TrainingSpec",
    "TransposedConfig",
    "UNetDiffusionConfig",
    "ViTConfig",
    "WandbConfig",
    "WebDatasetConfig",
]

_STAGES = {
    "AutoencoderConfig": "autoencoder",
    "ConvRefinerConfig": "conv_refiner",
    "DAEConfig": "dae",
    "DiTConfig": "dit",
    "DiTSRConfig": "dit",
    "DiffusionConfig": "diffusion",
    "DiffusionSRConfig": "diffusion_sr",
    "FlowConfig": "flow",
    "FlowResidualSRConfig": "flow_sr",
    "FlowSRConfig": "flow_sr",
    "IdentityConfig": "identity",
    "InterpolateConfig": "interpolate",
    "MeanFlowConfig": "mean_flow",
    "PixelShuffleConfig": "pixelshuffle",
    "PureNoiseDiffusionConfig": "diffusion",
    "ResNetConfig": "resnet",
    "ResNetRefinerConfig": "resnet_refiner",
    "ResNetUpsamplerConfig": "resnet_upsampler",
    "TransposedConfig": "transposed",
    "UNetDiffusionConfig": "unet_diffusion",
    "ViTConfig": "vit",
}
_MODULES = {
    **{name: f"stages.{folder}.config" for name, folder in _STAGES.items()},
    "Cifar10Config": "data.torchvision_sets",
    "FashionMnistConfig": "data.torchvision_sets",
    "FashionTinyConfig": "data.fashion_tiny",
    "FolderConfig": "data.folder",
    "HuggingFaceConfig": "data.huggingface",
    "LpipsConfig": "train.loss_configs",
    "MnistConfig": "data.torchvision_sets",
    "NpzConfig": "data.npz",
    "PythonConfig": "data.python_config",
    "ShapesConfig": "data.shapes",
    "TensorBoardConfig": "train.tracker_configs",
    "TrackioConfig": "train.tracker_configs",
    "WandbConfig": "train.tracker_configs",
    "WebDatasetConfig": "data.webdataset",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"cascadezoo.{_MODULES.get(name, 'spec.models')}")
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
