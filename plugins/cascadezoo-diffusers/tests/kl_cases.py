"""Small AutoencoderKLs, saved by diffusers and loaded by the stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
from cascadezoo_diffusers.config_pretrained import PretrainedAutoencoderKLConfig
from cascadezoo_diffusers.pretrained import PretrainedAutoencoderKL
from torch import Tensor

from cascadezoo import Draw, ImageDraw, ImageShape, SampleRequest, StageGeometry

IMAGE = ImageShape(3, 16)
NETWORK = {
    "block_out_channels": (8, 16),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "latent_channels": 3,
    "scaling_factor": 0.4,
    "shift_factor": 0.05,
}


def save(folder: Path, **changes: Any) -> Any:
    """Save a model of diffusers and return it."""
    torch.manual_seed(0)
    model = diffusers.AutoencoderKL(**{**NETWORK, **changes}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return model


def build(
    source: str | Path | None, output: ImageShape = IMAGE, **fields: Any
) -> PretrainedAutoencoderKL:
    """A stage without loaded weights."""
    text = None if source is None else str(source)
    config = PretrainedAutoencoderKLConfig.model_validate({"source": text, **fields}).fit(output)
    return PretrainedAutoencoderKL(
        config, StageGeometry(output, config.upstream_shape(output), None)
    )


def loaded(
    source: str | Path, output: ImageShape = IMAGE, **fields: Any
) -> PretrainedAutoencoderKL:
    stage = build(source, output, **fields)
    stage.load_initial_weights()
    return stage


def pixels(count: int = 3, size: int = 16) -> Tensor:
    return Draw("pixels").rand(count, 3, size, size) * 2 - 1


def request(count: int) -> SampleRequest:
    return SampleRequest(count, ImageDraw(0, "decoder", 0, count))
