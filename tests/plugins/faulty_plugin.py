"""A plugin whose pieces fail as their config says, and specs that use it."""

from __future__ import annotations

from typing import Any

HOOKS = """
from cascadezoo import (
    CommandEntry, DataEntry, FeatureEntry, LossEntry, MetricEntry, StageEntry, ZooEntry, hookimpl,
)

P = "cascadezoo_faulty"
C = f"{P}.config"

@hookimpl
def register_stages():
    return [StageEntry(name="faulty.v1", role="refiner", summary="s", impl=f"{P}.stage:S", config=f"{C}:C")]

@hookimpl
def register_datasets():
    return [DataEntry(name="faulty-data", summary="s", impl=f"{P}.parts:data", config=f"{C}:Data")]

@hookimpl
def register_losses():
    return [LossEntry(name="faulty-loss", summary="s", impl=f"{P}.parts:Loss", config=f"{C}:Loss")]

@hookimpl
def register_features():
    return [FeatureEntry(name="faulty-features", summary="s", impl=f"{P}.parts:features", config=f"{C}:Loss")]

@hookimpl
def register_metrics():
    return [MetricEntry(name="faulty-metric", summary="s", impl=f"{P}.parts:metric")]

@hookimpl
def register_zoos():
    return [ZooEntry(name="faulty-zoo", summary="s", impl=f"{P}.parts:zoo")]

@hookimpl
def register_commands():
    return [CommandEntry(name="faulty-command", summary="s", impl=f"{P}.command:run")]
"""

CONFIG = '''
from cascadezoo import DataConfig, DataInfo, Model, RefinerConfig

class C(RefinerConfig):
    """A config."""
    fault: str = ""

    def fit(self, output):
        if self.fault == "fit":
            raise KeyError("no such size")
        return super().fit(output)

    def advice(self, output, num_classes):
        if self.fault == "advice":
            raise IndexError("no advice")
        yield from super().advice(output, num_classes)

class Data(DataConfig):
    """A dataset."""
    fault: str = ""

    def info(self):
        if self.fault == "info":
            raise OSError("no such table")
        return DataInfo(size=8, channels=1, num_classes=0)

class Loss(Model):
    """A loss or an extractor."""
    fault: str = ""
'''

STAGE = '''
import sys
import torch
from torch import nn
from cascadezoo import Stage, StageInputs, StageOutput
from cascadezoo.errors import TrainingError

class Foreign(nn.Module):
    """A module of somebody else with a buffer that is not saved, as timm's Swin."""

    def __init__(self):
        super().__init__()
        self.register_buffer("index", torch.arange(8.0), persistent=False)

class S(Stage):
    def __init__(self, config, geometry):
        super().__init__(config, geometry)
        self.fault = config.fault
        self.steps_done = 0
        self.fail("init")
        self.shift = nn.Parameter(torch.tensor(0.1))
        self.other = nn.Parameter(torch.tensor(0.1))
        self.foreign = Foreign()
        self.register_buffer("count", torch.zeros((), device="cpu"), persistent=False)
        if self.fault == "attribute":
            self.table = torch.linspace(0, 1, 8)
        if self.fault == "unstorable":
            self.register_buffer("phase", torch.zeros(2, dtype=torch.complex64))
        if self.fault == "lost-weight":
            self.lost = nn.Parameter(torch.zeros(()))

    def fail(self, where):
        if self.fault == where:
            raise ValueError(f"broken {where}")
        if self.fault == f"{where}-exit":
            sys.exit(3)
        if self.fault == f"{where}-deliberate":
            raise TrainingError("cannot go on", hint="do something")
        if self.fault == f"{where}-interrupt":
            raise KeyboardInterrupt
        if self.fault == f"{where}-memory":
            raise torch.OutOfMemoryError("CUDA out of memory")

    def upstream_target(self, images):
        self.fail("upstream_target")
        if self.fault == "target-shape":
            return images[:, :, :4]
        return images

    def preprocess(self, target, upstream, context):
        self.fail("preprocess")
        return StageInputs(target, upstream)

    def parameter_groups(self):
        self.fail("groups")
        return super().parameter_groups()

    def forward(self, inputs):
        self.fail("forward")
        fault = self.fault
        estimate = inputs.upstream + self.shift + 0 * self.other + 0 * self.foreign.index.sum()
        self.steps_done += 1
        loss = (estimate - inputs.target).square().mean()
        if fault == "output-type":
            return estimate, loss
        if fault == "estimate-type":
            estimate = estimate.tolist()
        elif fault == "estimate-shape":
            estimate = estimate[:, :, :4]
        elif fault == "estimate-dtype":
            estimate = estimate.double()
        elif fault == "estimate-nan":
            estimate = estimate * torch.tensor(float("nan"))
        elif fault == "estimate-detached":
            estimate = estimate.detach()
        elif fault == "loss-without-gradient":
            loss = loss.detach()
        elif fault == "loss-shape":
            loss = (estimate - inputs.target).square()
        elif fault == "loss-number":
            loss = 0.5
        elif fault == "loss-of-nothing":
            loss = torch.zeros((), requires_grad=True) * 1.0
        elif fault == "late-loss" and self.steps_done > 2:
            loss = loss.detach()
        elif fault == "buffer":
            self.count += 1
        output = StageOutput(estimate, {"mse": loss})
        if fault == "figure":
            output.figures["brightness"] = estimate.mean()
        return output

    def saved_state(self):
        state = super().saved_state()
        state.pop("lost", None)
        return state

    def sample(self, upstream, request):
        self.fail("sample")
        image = (upstream + self.shift).clamp(-1, 1) + 0 * self.foreign.index.sum()
        if self.fault == "sample-shape":
            return image[:, :, :4]
        if self.fault == "sample-type":
            return image.numpy()
        if self.fault == "sample-nan":
            return image / 0 * 0
        if self.fault == "sample-count":
            return image[:1].expand(request.count + 1, -1, -1, -1)
        if self.fault == "attribute":
            return image * self.table
        if self.fault == "counter":
            return image * (1 + self.steps_done) if self.steps_done else image
        return image
'''

PARTS = """
import numpy as np
import torch
from cascadezoo import FeatureExtractor, ImageData

def data(config, split):
    if config.fault == "load":
        return np.zeros(3)[5]
    images = np.zeros((32, 1, 8, 8), np.uint8)
    images += {"train": 100, "test": 50}[split]
    if config.fault == "type":
        return images
    if config.fault == "split":
        split = "test"
    if config.fault == "form":
        images = images.astype(np.float32)
    return ImageData(images, None, split)

class Loss(torch.nn.Module):
    def __init__(self, config, shape):
        super().__init__()
        self.fault = config.fault
        if self.fault == "make":
            raise RuntimeError("not made")

    def forward(self, estimate, target):
        if self.fault == "forward":
            raise RuntimeError("not computed")
        difference = (estimate - target).abs()
        return difference if self.fault == "shape" else difference.mean()

class Features(FeatureExtractor):
    name, version, sha256, num_features, input_size = "faulty-features", "v1", "0" * 64, 1, 8

    def features(self, images):
        if self.fault == "features":
            raise RuntimeError("no features")
        if self.fault == "features-type":
            return [0.0] * len(images)
        return images.float().mean(dim=(1, 2, 3))[:, None]

    def logits(self, features):
        raise RuntimeError("no logits")

class Nameless(FeatureExtractor):
    def features(self, images):
        return images

def features(config, device):
    if config.fault == "load":
        raise RuntimeError("not loaded")
    if config.fault == "type":
        return "extractor"
    if config.fault == "nameless":
        return Nameless()
    extractor = Features()
    extractor.fault = config.fault
    return extractor

def metric(config, inputs):
    return 1 / 0

def zoo():
    raise RuntimeError("no zoo")
"""

COMMAND = '''
import click
from cascadezoo.errors import InputError

@click.command()
@click.argument("how")
def run(how):
    """Fails."""
    if how == "error":
        {}["missing"]
    if how == "file":
        open("no-such-file")
    if how == "deliberate":
        raise InputError("bad input", hint="give another")
    if how == "usage":
        raise click.UsageError("used wrongly")
    if how == "exit":
        raise SystemExit(7)
    click.echo("done")
'''

FILES = {
    "__init__.py": HOOKS,
    "config.py": CONFIG,
    "stage.py": STAGE,
    "parts.py": PARTS,
    "command.py": COMMAND,
}


def line_of(file: str, text: str) -> int:
    """The number of the first line of a file that contains a text."""
    return next(n for n, row in enumerate(FILES[file].splitlines(), 1) if text in row)


def faulty_spec(fault: str = "", **changes: Any) -> dict[str, Any]:
    """A spec of a built-in generator and the faulty stage; 8x8 images, three steps."""
    return {
        "name": "faulty",
        "data": {"source": "shapes", "config": {"size": 8, "count": 64}},
        "stages": [
            {"name": "coarse", "kind": "flow.v1", "config": {"channels": 8, "multipliers": [1]}},
            {"name": "fix", "kind": "faulty.v1", "config": {"fault": fault}},
        ],
        "training": {
            "losses": [],
            "batch_size": 8,
            "log_steps": 3,
            "phases": [{"name": "refine", "train": ["fix"], "steps": 3}],
        },
        "evaluation": {"metrics": [], "extractor": "small"},
        **changes,
    }
