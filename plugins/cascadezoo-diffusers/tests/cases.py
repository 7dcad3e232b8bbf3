"""Small stages of each kind, and folders that diffusers saved."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import torch
from cascadezoo_diffusers import register_stages
from torch import Tensor

from cascadezoo import (
    Draw,
    ImageDraw,
    ImageShape,
    SampleRequest,
    Stage,
    StageConfig,
    StageGeometry,
    StageOutput,
    TrainContext,
)

ENTRIES = {entry.name: entry for entry in register_stages()}
CLASSES = 5

UNET: dict[str, Any] = {
    "block_out_channels": [8, 16],
    "norm_num_groups": 4,
    "layers_per_block": 1,
    "attention_head_dim": 4,
}
BLOCKS: dict[str, Any] = {
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
}
VAE: dict[str, Any] = {"block_out_channels": [8, 16], "norm_num_groups": 4, "latent_channels": 3}


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
    def output(self) -> ImageShape:
        return ImageShape(self.channels, self.size, self.latent)

    def config(self) -> StageConfig:
        config: StageConfig = ENTRIES[self.kind].load_config().model_validate(self.settings)
        return config.fit(self.output)

    def geometry(self) -> StageGeometry:
        return StageGeometry(
            self.output, self.config().upstream_shape(self.output), self.num_classes
        )

    def make(self) -> Stage:
        stage: Stage = ENTRIES[self.kind].load()(self.config(), self.geometry())
        return stage

    def stage(self) -> Stage:
        """The stage, without weights of zero."""
        torch.manual_seed(0)
        return perturbed(self.make())

    def upstream(self, count: int, device: str = "cpu") -> Tensor | None:
        shape = self.geometry().input
        if shape is None:
            return None
        return Draw("up", device=device).rand(count, shape.channels, shape.size, shape.size) * 2 - 1

    def target(self, count: int, device: str = "cpu") -> Tensor:
        return Draw("t", device=device).rand(count, self.channels, self.size, self.size) * 2 - 1

    def labels(self, count: int, device: str = "cpu") -> Tensor | None:
        if self.num_classes is None:
            return None
        return torch.arange(count, device=device) % self.num_classes


def perturbed(module: Any, by: float = 0.03) -> Any:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(by * torch.randn_like(parameter))
    return module


STEPS = {"num_train_timesteps": 6, "beta_start": 0.05, "beta_end": 0.5}
SMALL = {
    "diffusers-unet2d.v1": Case("diffusers-unet2d.v1", {"unet": UNET, "scheduler": STEPS}),
    "diffusers-unet2d-sr.v1": Case("diffusers-unet2d-sr.v1", {"unet": UNET, "scheduler": STEPS}),
    "diffusers-autoencoder-kl.v1": Case("diffusers-autoencoder-kl.v1", {"vae": VAE}),
    "autoencoder-kl.v1": Case("autoencoder-kl.v1", VAE),
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
    return SampleRequest(
        count, ImageDraw(7, case.kind, first, count), **{"labels": labels, **options}
    )


def small_unet(**changes: Any) -> Any:
    """A random ``UNet2DModel``."""
    torch.manual_seed(0)
    settings = {**UNET, **BLOCKS, "sample_size": 8, **changes}
    return perturbed(diffusers.UNet2DModel(**settings).eval(), 0.1)


def save_pipeline(folder: Path, scheduler: Any = None, **unet: Any) -> Any:
    """Save a DDPM or DDIM pipeline and return it."""
    scheduler = scheduler or diffusers.DDPMScheduler(
        num_train_timesteps=20, beta_start=0.01, beta_end=0.3
    )
    name = type(scheduler).__name__.removesuffix("Scheduler")
    cls = getattr(diffusers, f"{name}Pipeline", diffusers.DDPMPipeline)
    pipeline = cls(unet=small_unet(**unet), scheduler=scheduler)
    pipeline.save_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def stage_from(source: Path | str, kind: str = "diffusers-unet2d.v1", **more: Any) -> Stage:
    """A stage with the weights of a source."""
    size = more.pop("size", 8)
    classes = more.pop("num_classes", None)
    case = Case(kind, {"source": str(source), **more}, size=size, num_classes=classes)
    stage = case.make()
    stage.load_initial_weights()
    return stage.eval()
