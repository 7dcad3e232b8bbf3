"""A plugin that implements every hook, a spec that uses it, and builds of that spec."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from plugin_sites import CONFIG, STAGE

from cascadezoo.cli.main import main

ENTRY = """
from cascadezoo import (
    CallbackEntry, CommandEntry, DataEntry, FeatureEntry, LossEntry, MetricEntry, StageEntry,
    ZooEntry, hookimpl,
)

CASCADEZOO_API = 1
P = "cascadezoo_all"

@hookimpl
def register_stages():
    return [StageEntry(name="all.v1", role="refiner", summary="s", impl=f"{P}.stage:S", config=f"{P}.config:C")]

@hookimpl
def register_datasets():
    return [DataEntry(name="all-data", summary="s", impl=f"{P}.parts:data", config=f"{P}.config:Data")]

@hookimpl
def register_losses():
    yield LossEntry(name="all-loss", summary="s", impl=f"{P}.parts:Loss", config=f"{P}.config:Loss")

@hookimpl
def register_metrics():
    return [MetricEntry(name="all-metric", summary="s", impl=f"{P}.parts:metric")]

@hookimpl
def register_features():
    return [FeatureEntry(name="all-features", summary="s", impl=f"{P}.parts:features")]

@hookimpl
def register_zoos():
    return [ZooEntry(name="all-zoo", summary="s", impl=f"{P}.zoo:load")]

@hookimpl
def register_commands():
    return [CommandEntry(name="all-command", summary="prints a word", impl=f"{P}.command:say")]

@hookimpl
def register_callbacks():
    return [CallbackEntry(name="all-callback", summary="s", impl=f"{P}.tracker:Tracker", config=f"{P}.config:Tracker")]
"""

CONFIGS = (
    CONFIG.replace("import RefinerConfig", "import DataConfig, DataInfo, Model, RefinerConfig")
    + '''
class Data(DataConfig):
    """Grey levels."""
    level: int = 100
    """The brightness."""

    def info(self):
        return DataInfo(size=8, channels=1, num_classes=2, class_names=("dark", "bright"))

class Loss(Model):
    """A loss."""
    power: int = 2
    """The power of the difference."""

class Tracker(Model):
    """A tracker."""
    fail: str = ""
    """The event at which it fails."""
'''
)

PARTS = """
import numpy as np
import torch
from cascadezoo import FeatureExtractor, ImageData, Measured

def data(config, split):
    images = np.full((32, 1, 8, 8), config.level, np.uint8)
    images[::2] //= 2
    if split == "test":
        images += 1
    return ImageData(images, np.arange(32) % 2, split)

class Loss(torch.nn.Module):
    def __init__(self, config, shape):
        super().__init__()
        self.power = config.power
        self.shape = shape

    def forward(self, estimate, target):
        return (estimate - target).abs().pow(self.power).mean()

def metric(config, features):
    return Measured(float(features.generated.mean() - features.real.mean()), std=0.5, unit="dB")

class Features(FeatureExtractor):
    name, version, sha256, num_features, input_size = "all-features", "v1", "0" * 64, 3, 8

    def features(self, images):
        return images.float().mean(dim=(2, 3)) / 255

def features(config, device):
    extractor = Features()
    extractor.device = device
    return extractor
"""

ZOO = """
def load():
    return {"version": 1, "models": [{
        "name": "all-model", "repo": "org/all-model", "commit": "0" * 40, "spec_digest": "0" * 64,
        "files": {"config.json": {"sha256": "0" * 64, "size": 1}}, "size": 8, "parameters": 1,
        "data": "all-data", "license": "mit",
    }]}
"""

COMMAND = '''
import sys
import click

@click.command()
@click.argument("word")
def say(word):
    """Print a word."""
    click.echo(f"{word}, and torch is {'torch' in sys.modules}")
'''

TRACKER = '''
from cascadezoo import Callback

class Tracker(Callback):
    """Records events in a file."""

    def __init__(self, config, run):
        super().__init__(config, run)
        self.record("run", f"{run.name} {run.device} {run.precision} {run.spec['seed']}")

    def on_phase(self, event):
        self.record("phase", f"{event.phase} {event.index} {event.state} {event.step} {event.steps}")

    def on_step(self, event):
        self.record("step", f"{event.step} {event.phase_step} {sorted(event.losses)} {sorted(event.lr)}")

    def on_epoch(self, event):
        self.record("epoch", f"{event.epoch} {event.step} {event.whole}")

    def on_figure(self, event):
        self.record("figure", f"{event.figure['name']} {event.phase} {event.step}")

    def close(self):
        self.record("close", "")

    def record(self, event, line):
        with (self.run.folder / "record.txt").open("a") as file:
            file.write(f"{event} {line}".rstrip() + "\\n")
        if self.config.fail == event:
            raise RuntimeError(f"no more {event}")
'''

FILES = {
    "__init__.py": ENTRY,
    "config.py": CONFIGS,
    "stage.py": STAGE,
    "parts.py": PARTS,
    "zoo.py": ZOO,
    "command.py": COMMAND,
    "tracker.py": TRACKER,
}


def spec(**callback: Any) -> dict[str, Any]:
    return {
        "name": "all",
        "data": {"source": "all-data", "config": {"level": 200}},
        "stages": [
            {"name": "coarse", "kind": "flow.v1", "config": {"channels": 8, "steps": 2}},
            {"name": "refine", "kind": "all.v1"},
        ],
        "training": {
            "batch_size": 8,
            "log_steps": 2,
            "losses": [{"kind": "all-loss", "stage": "refine", "config": {"power": 1}}],
            "callbacks": [{"kind": "all-callback", "config": callback}],
            "phases": [
                {"name": "one", "train": ["coarse"], "steps": 5},
                {"name": "two", "train": ["refine"], "epochs": 1},
            ],
        },
        "evaluation": {
            "metrics": ["all-metric", "kid"],
            "extractor": "all-features",
            "samples": 16,
            "subset_size": 8,
            "subsets": 3,
        },
    }


def build(folder: Path, data: dict[str, Any], *more: str) -> Result:
    folder.mkdir(exist_ok=True)
    path = folder / "all.json"
    path.write_text(json.dumps(data))
    line = ["build", str(path), "-o", str(folder / "run"), "--quiet", *more]
    return CliRunner().invoke(main, line, prog_name="cascadezoo")


def recorded(tmp_path: Path) -> list[str]:
    return (tmp_path / "run" / "record.txt").read_text().splitlines()
