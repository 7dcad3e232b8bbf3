"""A small case for each built-in kind, and helpers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cascadezoo.plugins.builtin import register_stages
from cascadezoo.spec.configs import ImageShape, StageConfig
from cascadezoo.stages.base import SampleRequest, Stage, StageGeometry, StageOutput, TrainContext
from cascadezoo.util.rng import Draw, ImageDraw

ENTRIES = {entry.name: entry for entry in register_stages()}
CLASSES = 5


@dataclass(frozen=True)
class Case:
    """A kind with a small config and its sizes."""

    kind: str
    settings: dict[str, Any] = field(default_factory=dict)
    size: int = 12
    channels: int = 3
    num_classes: int | None = CLASSES
    latent: bool = False

    def __str__(self) -> str:
        return self.kind

    @property
    def role(self) -> str:
        return ENTRIES[self.kind].role

    def config(self) -> StageConfig:
        output = ImageShape(self.channels, self.size, self.latent)
        config: StageConfig = ENTRIES[self.kind].load_config().model_validate(self.settings)
        return config.fit(output)

    def geometry(self) -> StageGeometry:
        output = ImageShape(self.channels, self.size, self.latent)
        return StageGeometry(output, self.config().upstream_shape(output), self.num_classes)

    def stage(self, *, fresh: bool = False) -> Stage:
        """The stage; unless ``fresh``, without weights of zero."""
        torch.manual_seed(0)
        stage: Stage = ENTRIES[self.kind].load()(self.config(), self.geometry())
        if not fresh:
            with torch.no_grad():
                for parameter in stage.parameters():
                    parameter.add_(0.03 * torch.randn_like(parameter))
        return stage

    def upstream(self, count: int, device: str = "cpu") -> Tensor | None:
        shape = self.geometry().input
        if shape is None:
            return None
        draw = Draw("upstream", device=device)
        return draw.rand(count, shape.channels, shape.size, shape.size) * 2 - 1

    def target(self, count: int, device: str = "cpu") -> Tensor:
        draw = Draw("target", device=device)
        return draw.rand(count, self.channels, self.size, self.size) * 2 - 1

    def labels(self, count: int, device: str = "cpu") -> Tensor | None:
        if self.num_classes is None:
            return None
        return torch.arange(count, device=device) % self.num_classes


SMALL = {
    "flow.v1": Case("flow.v1", {"channels": 8, "steps": 3}),
    "mean-flow.v1": Case("mean-flow.v1", {"channels": 8, "steps": 2, "flow_ratio": 0.5}),
    "diffusion.v1": Case("diffusion.v1", {"channels": 16, "latent": 16, "timesteps": 6}),
    "diffusion.v2": Case("diffusion.v2", {"channels": 16, "latent": 16, "timesteps": 6}),
    "unet-diffusion.v1": Case("unet-diffusion.v1", {"channels": 8, "timesteps": 6}),
    "diffusion-sr.v1": Case("diffusion-sr.v1", {"channels": 8, "timesteps": 6, "s": 0.2}),
    "flow-sr.v1": Case("flow-sr.v1", {"channels": 8, "steps": 3}),
    "flow-sr.v2": Case("flow-sr.v2", {"channels": 8, "steps": 3, "residual_scale": 0.5}),
    "dit.v1": Case("dit.v1", {"features": 16, "blocks": 2, "heads": 2, "steps": 3}),
    "dit-sr.v1": Case("dit-sr.v1", {"features": 16, "blocks": 2, "heads": 2, "steps": 3}),
    "autoencoder.v1": Case("autoencoder.v1", {"channels": 8, "multipliers": [1, 2]}),
    "dae.v1": Case("dae.v1", {"channels": 8, "levels": 6}),
    "resnet.v1": Case("resnet.v1", {"channels": 16, "candidates": 3}),
    "resnet-upsampler.v1": Case("resnet-upsampler.v1", {"hidden": 16}),
    "transposed.v1": Case("transposed.v1", {"hidden": 16}),
    "interpolate.v1": Case("interpolate.v1"),
    "conv-refiner.v1": Case("conv-refiner.v1", {"hidden": 16}),
    "resnet-refiner.v1": Case("resnet-refiner.v1", {"hidden": 16}),
    "identity.v1": Case("identity.v1"),
    "pixelshuffle.v1": Case("pixelshuffle.v1", {"hidden": 32}),
    "vit.v1": Case("vit.v1", {"features": 32, "heads": 4}),
}


def train(
    stage: Stage, case: Case, *, count: int = 4, step: int = 0, upstream: Tensor | None = None
) -> StageOutput:
    """One training forward pass on the case's images."""
    if upstream is None:
        upstream = case.upstream(count)
    context = TrainContext(Draw(0, "train", step), labels=case.labels(count))
    output: StageOutput = stage(stage.preprocess(case.target(count), upstream, context))
    return output


def request(case: Case, first: int, count: int, **options: Any) -> SampleRequest:
    """A request for the images ``first`` to ``first + count`` of a seed."""
    labels = case.labels(first + count)
    labels = None if labels is None else labels[first:]
    draw = ImageDraw(7, case.kind, first, count)
    return SampleRequest(count, draw, **{"labels": labels, **options})
