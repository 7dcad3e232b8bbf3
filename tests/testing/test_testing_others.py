"""The checks of datasets, metrics, losses, extractors, zoos, commands and callbacks."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cascadezoo import (
    CallbackEntry,
    CommandEntry,
    DataEntry,
    FeatureEntry,
    LossEntry,
    MetricEntry,
    ZooEntry,
)
from cascadezoo.plugins.manager import get_registry
from cascadezoo.testing import assert_entry, check_entry, check_names

VALID = '''
import click
import numpy as np
import torch
from cascadezoo import Callback, DataConfig, DataInfo, FeatureExtractor, ImageData, Measured, Model

class Settings(Model):
    """Settings."""
    power: int = 2
    """Of something."""

class Data(DataConfig):
    """Images."""
    def info(self):
        return DataInfo(size=8, channels=3, num_classes=2, class_names=("a", "b"))

def data(config, split):
    """Reads."""
    seed = 0 if split == "train" else 1
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (20, 3, 8, 8)).astype(np.uint8)
    return ImageData(images, np.arange(20) % 2, split)

def metric(config, features):
    """Measures."""
    return Measured(float(features.generated.mean() - features.real.mean()))

class Loss(torch.nn.Module):
    """A loss."""
    def __init__(self, config, shape):
        super().__init__()

    def forward(self, estimate, target):
        return (estimate - target).square().mean()

class Extractor(FeatureExtractor):
    """Means."""
    name, version, sha256, num_features, input_size = "kind", "v1", "0" * 64, 3, 8

    def __init__(self, config, device):
        self.device = device

    def features(self, images):
        return images.float().mean(dim=(2, 3))

def zoo():
    """Models."""
    return {"version": 1, "models": []}

@click.command()
def say():
    """Say."""

class Tracker(Callback):
    """Tracks."""
    def on_step(self, event):
        pass

    def close(self):
        pass
'''

KINDS = {
    "data": (DataEntry, "Data", "data"),
    "metric": (MetricEntry, "Settings", "metric"),
    "loss": (LossEntry, "Settings", "Loss"),
    "features": (FeatureEntry, "Settings", "Extractor"),
    "zoo": (ZooEntry, None, "zoo"),
    "command": (CommandEntry, None, "say"),
    "callback": (CallbackEntry, "Settings", "Tracker"),
}

# Kind, change of the source, the check that fails, a value that its message shows.
FAULTS = [
    ("data", "seed = 0 if split", "seed = 0 if 1 or split", "data", ""),
    ("data", "size=8", "size=9", "data", "size 9"),
    ("data", "channels=3,", "channels=1,", "data", "channels 1"),
    ("data", "% 2, split", "% 5, split", "data", "0 to 4"),
    ("data", "np.arange(20) % 2, split", "None, split", "data", "train"),
    ("data", '("a", "b")', '("a",)', "data", "1 class names"),
    ("data", "% 2, split", "% 2, 'train'", "data", "'train'"),
    ("data", "return ImageData(images,", "return (images,", "data", "tuple"),
    ("data", "default_rng(seed)", "default_rng()", "determinism", ""),
    ("data", "class Data(DataConfig)", "class Data(Model)", "data", "cascadezoo.DataConfig"),
    ("metric", "Measured(float(", "str((", "measure", "str"),
    ("metric", "features.generated.mean()", "float('nan')", "measure", "nan"),
    ("metric", "features.generated.mean()", "torch.rand(())", "measure", "features.seed"),
    ("metric", "features.generated.mean()", "features.generated.mul_(2).mean()", "measure", ""),
    ("loss", ".square().mean()", ".square()", "loss", "tensor"),
    ("loss", "(estimate - target)", "(estimate.detach() * estimate.new_ones((), requires_grad=True))", "loss", "estimate"),
    ("loss", "class Loss(torch.nn.Module)", "class Loss(dict)", "loss", "Error"),
    ("features", "(2, 3))", "(2, 3)) + images.float().mean()", "features", ""),
    ("features", "(2, 3))", "(2, 3)) + torch.rand(())", "features", ""),
    ("features", "(2, 3))", "(1, 2, 3))", "features", "not (5, 3)"),
    ("features", '"kind", "v1"', '"other", "v1"', "features", "'other'"),
    ("features", "class Extractor(FeatureExtractor)", "class Extractor", "features", "FeatureExtractor"),
    ("zoo", '"version": 1', '"version": 7', "manifest", ""),
    ("command", "@click.command()\n", "", "command", "click.Command"),
    ("command", '    """Say."""', "    pass", "command", "--help"),
    ("callback", "on_step(", "on_stepp(", "callback", "on_stepp"),
    ("callback", "on_step(self, event)", "on_step(self)", "callback", "on_step"),
    ("callback", "class Tracker(Callback)", "class Tracker", "callback", "cascadezoo.Callback"),
    ("callback", "class Settings(Model)", "class Settings(dict)", "callback", "cascadezoo.Model"),
    ("metric", '    """Of something."""', "", "docs", "'power' of Settings"),
]  # fmt: skip

APART = ("config-without-torch", "import-cost")


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    made = []

    def make(kind: str, source: str = VALID) -> Any:
        cls, config, impl = KINDS[kind]
        module = f"kinds_{tmp_path.name}".replace("-", "_")
        (tmp_path / f"{module}.py").write_text(source)
        made.append(module)
        settings = {} if config is None else {"config": f"{module}:{config}"}
        return cls(name="kind", summary="s", impl=f"{module}:{impl}", **settings)

    yield make
    for module in made:
        sys.modules.pop(module, None)


@pytest.mark.parametrize("kind", KINDS)
def test_valid_entries_pass(kind: str, entry) -> None:
    assert_entry(entry(kind), skip=APART)


@pytest.mark.parametrize(("kind", "old", "new", "check", "shown"), FAULTS)
def test_each_fault_fails_its_check(kind, old, new, check, shown, entry) -> None:
    assert old in VALID
    report = check_entry(entry(kind, VALID.replace(old, new)), skip=APART)
    messages = {result.name: result.message for result in report.failures}
    assert shown in messages[check], report


CASCADE_METRIC = VALID.replace(
    "float(features.generated.mean() - features.real.mean())",
    "float(sum(b.float().mean() for b in features.samples.batches(features.n)))",
)


def test_a_metric_on_a_cascade_is_called(entry) -> None:
    def of_cascade(source: str) -> MetricEntry:
        return replace(entry("metric", source), takes="cascade")

    assert_entry(of_cascade(CASCADE_METRIC), skip=APART)
    for old, new, shown in (
        ("features.samples.batches", "features.images.batches", "AttributeError"),
        ("float(sum(", "str(sum(", "str"),
        ("b.float().mean()", "b.float().mean() + torch.rand(())", "another number each time"),
    ):
        assert old in CASCADE_METRIC
        broken = of_cascade(CASCADE_METRIC.replace(old, new))
        sys.modules.pop(broken.impl.partition(":")[0], None)
        (failure,) = check_entry(broken, skip=APART).failures
        assert failure.name == "measure"
        assert shown in failure.message


def test_a_metric_that_states_no_extractor_uses_none(entry) -> None:
    def without(source: str) -> MetricEntry:
        return replace(entry("metric", source), takes="cascade", extractor=False)

    assert_entry(without(CASCADE_METRIC), skip=APART)
    old = "features.samples.batches(features.n)"
    broken = without(CASCADE_METRIC.replace(old, f"map(features.extractor, {old})"))
    sys.modules.pop(broken.impl.partition(":")[0], None)
    (failure,) = check_entry(broken, skip=APART).failures
    assert failure.name == "measure"
    assert "states extractor=False" in failure.message
    with pytest.raises(ValueError, match="takes='features' needs an extractor"):
        replace(entry("metric"), extractor=False)


def test_settings_are_validated(entry) -> None:
    report = check_entry(entry("loss"), {"powre": 3}, skip=APART)
    assert not report.ok
    assert "powre: " in str(report)
    assert check_entry(entry("loss"), {"power": 3}, skip=APART).ok


def test_the_names_of_the_checks(entry) -> None:
    stage = get_registry().stages.get("flow.v1").entry
    names = check_names([stage, entry("loss")])
    assert {"loss", "compile", "docs"} <= names
    assert check_names([entry("zoo")]) == {*APART, "docs", "manifest"}
    for kind in KINDS:
        checked = entry(kind)
        names = {result.name for result in check_entry(checked, skip=APART).results}
        assert names == check_names([checked])


def test_built_in_entries_pass() -> None:
    registry = get_registry()
    for table, name, config in (
        (registry.datasets, "shapes", {"size": 16, "count": 64, "test_count": 32}),
        (registry.datasets, "fashion-tiny", {}),
        (registry.metrics, "kid", {}),
        (registry.features, "small", {}),
        (registry.zoos, "cascadezoo", {}),
    ):
        assert_entry(table.get(name).entry, config, skip=APART)
