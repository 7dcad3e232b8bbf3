"""The public API: its names, its typing and its lazy imports."""

from __future__ import annotations

import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

import cascadezoo

PUBLIC = [
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


def test_the_public_names() -> None:
    assert sorted(cascadezoo.__all__) == sorted(PUBLIC)
    for name in cascadezoo.__all__:
        assert getattr(cascadezoo, name) is not None
        assert name in dir(cascadezoo)
    with pytest.raises(AttributeError, match="nonsense"):
        cascadezoo.nonsense  # noqa: B018


def test_the_version_is_the_distributions() -> None:
    from importlib.metadata import version

    assert version("cascadezoo") == cascadezoo.__version__


def test_the_package_is_typed_and_has_its_manifest() -> None:
    from cascadezoo.zoo.manifest import read_manifest

    assert resources.files("cascadezoo").joinpath("py.typed").is_file()
    assert read_manifest().version == 1


def test_import_is_light() -> None:
    code = (
        "import sys, cascadezoo\n"
        "from cascadezoo import StageEntry, hookimpl, RefinerConfig, load_spec\n"
        "load_spec('shapes-demo')\n"
        "heavy = {'torch', 'torchvision', 'timm', 'huggingface_hub', 'lpips', 'torchmetrics', 'numpy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_packages_have_a_readme_for_newcomers() -> None:
    package = Path(cascadezoo.__file__).parent
    for folder in (
        "stages",
        "data",
        "evaluate",
        "report",
        "cli",
        "nn",
        "diffusion",
        "train",
        "hub",
        "sweep",
    ):
        lines = (package / folder / "README.md").read_text().splitlines()
        assert 5 <= len(lines) <= 60, folder
