"""The checks of datasets, metrics, losses, extractors, zoos, commands and callbacks."""

from __future__ import annotations

import sys
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

SOUND = '''
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
    name, version, sha256, num_features, input_size = "sort", "v1", "0" * 64, 3, 8

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

SORTS = {
    "data": (DataEntry, "Data", "data"),
    "metric": (MetricEntry, "Settings", "metric"),
    "loss": (LossEntry, "Settings", "Loss"),
    "features": (FeatureEntry, "Settings", "Extractor"),
    "zoo": (ZooEntry, None, "zoo"),
    "command": (CommandEntry, None, "say"),
    "callback": (CallbackEntry, "Settings", "Tracker"),
}

# Sort, change of the source, the check that fails, what it says.
SPOILT = [
    ("data", "seed = 0 if split", "seed = 0 if 1 or split", "data", "are the same"),
    ("data", "size=8", "size=9", "data", "info() tells size 9, and the train images have 8"),
    ("data", "channels=3,", "channels=1,", "data", "info() tells channels 1"),
    ("data", "% 2, split", "% 5, split", "data", "train labels go from 0 to 4; 2 are told"),
    ("data", "np.arange(20) % 2, split", "None, split", "data", "train has no labels"),
    ("data", '("a", "b")', '("a",)', "data", "1 class names and 2 classes"),
    ("data", "% 2, split", "% 2, 'train'", "data", "gives the split 'train'"),
    ("data", "return ImageData(images,", "return (images,", "data", "gives a tuple, not an ImageData"),
    ("data", "default_rng(seed)", "default_rng()", "determinism", "read twice"),
    ("data", "class Data(DataConfig)", "class Data(Model)", "data", "no subclass of cascadezoo.DataConfig"),
    ("metric", "Measured(float(", "str((", "measure", "gives a str"),
    ("metric", "features.generated.mean()", "float('nan')", "measure", "gives nan"),
    ("metric", "features.generated.mean()", "torch.rand(())", "measure", "another number each time"),
    ("metric", "features.generated.mean()", "features.generated.mul_(2).mean()", "measure", "changes the features"),
    ("loss", ".square().mean()", ".square()", "loss", "not a finite scalar tensor"),
    ("loss", "(estimate - target)", "(estimate.detach() * estimate.new_ones((), requires_grad=True))", "loss", "has no gradient by the estimate"),
    ("loss", "class Loss(torch.nn.Module)", "class Loss(dict)", "loss", "Error"),
    ("features", "(2, 3))", "(2, 3)) + images.float().mean()", "features", "depend on the others"),
    ("features", "(2, 3))", "(2, 3)) + torch.rand(())", "features", "the second time"),
    ("features", "(2, 3))", "(1, 2, 3))", "features", "not (5, 3)"),
    ("features", '"sort", "v1"', '"other", "v1"', "features", "calls itself 'other'"),
    ("features", "class Extractor(FeatureExtractor)", "class Extractor", "features", "not a FeatureExtractor"),
    ("zoo", '"version": 1', '"version": 7', "manifest", "is not a zoo manifest"),
    ("command", "@click.command()\n", "", "command", "is a function, not a click.Command"),
    ("command", '    """Say."""', "    pass", "command", "has no docstring, which --help shows"),
    ("callback", "on_step(", "on_stepp(", "callback", "on_stepp is never called; there are close, on_epoch"),
    ("callback", "on_step(self, event)", "on_step(self)", "callback", "on_step cannot be called as it will be"),
    ("callback", "class Tracker(Callback)", "class Tracker", "callback", "no subclass of cascadezoo.Callback"),
    ("metric", '    """Of something."""', "", "docs", "the field 'power' of Settings has no docstring"),
]  # fmt: skip

APART = ("config-without-torch", "import-cost")


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    made = []

    def make(sort: str, source: str = SOUND) -> Any:
        cls, config, impl = SORTS[sort]
        module = f"sorts_{tmp_path.name}".replace("-", "_")
        (tmp_path / f"{module}.py").write_text(source)
        made.append(module)
        settings = {} if config is None else {"config": f"{module}:{config}"}
        return cls(name="sort", summary="s", impl=f"{module}:{impl}", **settings)

    yield make
    for module in made:
        sys.modules.pop(module, None)


@pytest.mark.parametrize("sort", SORTS)
def test_what_is_sound_passes(sort: str, entry) -> None:
    assert_entry(entry(sort), skip=APART)


@pytest.mark.parametrize(("sort", "old", "new", "check", "message"), SPOILT)
def test_each_fault_is_found(sort, old, new, check, message, entry) -> None:
    assert old in SOUND
    report = check_entry(entry(sort, SOUND.replace(old, new)), skip=APART)
    found = {result.name: result.message for result in report.failures}
    assert message in found.get(check, "not found"), report


def test_settings_are_validated(entry) -> None:
    report = check_entry(entry("loss"), {"powre": 3}, skip=APART)
    assert "powre: " in str(report)
    assert check_entry(entry("loss"), {"power": 3}, skip=APART).ok


def test_the_names_of_the_checks(entry) -> None:
    stage = get_registry().stages.get("flow.v1").entry
    names = check_names([stage, entry("loss")])
    assert {"loss", "compile", "docs"} <= names
    assert check_names([entry("zoo")]) == {*APART, "docs", "manifest"}
    for sort in SORTS:
        made = entry(sort)
        told = [result.name for result in check_entry(made, skip=APART).results]
        assert set(told) == check_names([made])


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
