"""Small stages of both kinds, and small specs."""

from __future__ import annotations

import os
import signal
from typing import Any

import torch
from cascadezoo_gan.adversarial import AdversarialStage
from cascadezoo_gan.config import GanConfig, SrGanConfig
from cascadezoo_gan.generator import GanGenerator
from cascadezoo_gan.upsampler import SrGanUpsampler

from cascadezoo import (
    Draw,
    ImageDraw,
    ImageShape,
    SampleRequest,
    StageGeometry,
    StageOutput,
    TrainContext,
)

KINDS = ["gan.v1", "srgan.v1"]
CLASSES = 5
COUNT = 4


def settings(kind: str, **changes: Any) -> dict[str, Any]:
    """A small config."""
    critic = {"channels": 4, **changes.pop("discriminator", {})}
    own = {"channels": 4, "noise": 6} if kind == "gan.v1" else {"channels": 6, "blocks": 1}
    return {**own, "discriminator": critic, **changes}


def make(kind: str, num_classes: int | None = CLASSES, **changes: Any) -> AdversarialStage:
    """A small stage for images of 12 pixels, without weights of zero."""
    config_class = GanConfig if kind == "gan.v1" else SrGanConfig
    stage_class = GanGenerator if kind == "gan.v1" else SrGanUpsampler
    shape = ImageShape(3, 12)
    config = config_class.model_validate(settings(kind, **changes)).fit(shape)
    geometry = StageGeometry(shape, config.upstream_shape(shape), num_classes)
    torch.manual_seed(0)
    stage = stage_class(config, geometry)
    with torch.no_grad():
        for parameter in stage.parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
    return stage


def images(count: int = COUNT, size: int = 12, device: str = "cpu") -> torch.Tensor:
    return Draw("images", size, device=device).rand(count, 3, size, size) * 2 - 1


def upstream(stage: AdversarialStage, count: int = COUNT, device: str = "cpu") -> Any:
    size = stage.in_size
    return None if size is None else images(count, size, device)


def labels(count: int = COUNT, device: str = "cpu") -> torch.Tensor:
    return torch.arange(count, device=device) % CLASSES


def train(stage: AdversarialStage, step: int = 0, fed: Any = None, **context: Any) -> StageOutput:
    """A training forward pass."""
    fed = upstream(stage) if fed is None else fed
    known = TrainContext(Draw(0, step), labels=labels(), step=step, **context)
    output: StageOutput = stage(stage.preprocess(images(), fed, known))
    return output


def values(output: StageOutput) -> dict[str, torch.Tensor]:
    """The losses as plain tensors."""
    return {k: getattr(v, "value", v) for k, v in output.losses.items()}


def request(first: int, count: int, **options: Any) -> SampleRequest:
    options.setdefault("labels", labels(first + count)[first:])
    return SampleRequest(count, ImageDraw(7, "s", first, count), **options)


def spec(phases: list[dict[str, Any]], **training: Any) -> dict[str, Any]:
    """A GAN of 8 pixels and its enlargement to 16, on shapes."""
    keep = {"discriminator": {"keep": True, "r1_every": 2}}
    return {
        "name": "tiny-gan",
        "data": {"source": "shapes", "config": {"size": 16, "count": 64, "test_count": 16}},
        "stages": [
            {"name": "coarse", "kind": "gan.v1", "config": settings("gan.v1", **keep)},
            {"name": "up", "kind": "srgan.v1", "config": settings("srgan.v1", **keep)},
        ],
        "training": {
            "batch_size": 8,
            "losses": [],
            "optimizer": {"lr": 0.002},
            "phases": [{"name": f"p{i}", **phase} for i, phase in enumerate(phases)],
            **training,
        },
        "evaluation": {"metrics": [], "extractor": "small"},
    }


class StopAt:
    """A progress display that sends SIGINT at a step of a phase."""

    def __init__(self, phase: str, step: int) -> None:
        self.at = (phase, step)
        self.name = ""

    def phase(self, name: str, *_: Any) -> None:
        self.name = name

    def step(self, done: int, *_: Any) -> None:
        if (self.name, done) == self.at:
            os.kill(os.getpid(), signal.SIGINT)

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None
