"""Small stages of both kinds, and a small spec."""

from __future__ import annotations

from typing import Any

import torch
from cascadezoo_tokens.autoencoder import VqAutoencoder
from cascadezoo_tokens.config import ArPriorConfig, VqAutoencoderConfig
from cascadezoo_tokens.prior import ArPrior

from cascadezoo import Draw, ImageDraw, ImageShape, SampleRequest, StageGeometry, TrainContext

IMAGE = ImageShape(3, 8)
TOKENS = ImageShape(1, 4, latent=True, tokens=6)
CLASSES = 3

VQ = {"tokens": 6, "code_size": 4, "channels": 4, "levels": 1}
PRIOR = {"width": 8, "blocks": 2, "heads": 2, "dropout": 0.0}


def autoencoder(**changes: Any) -> VqAutoencoder:
    config = VqAutoencoderConfig(**{**VQ, **changes}).fit(IMAGE)
    torch.manual_seed(0)
    return VqAutoencoder(config, StageGeometry(IMAGE, config.upstream_shape(IMAGE), CLASSES))


def prior(num_classes: int | None = CLASSES, shape: ImageShape = TOKENS, **changes: Any) -> ArPrior:
    """A small prior, whose weights are large enough for its logits to differ."""
    config = ArPriorConfig(**{**PRIOR, **changes}).fit(shape)
    torch.manual_seed(0)
    stage = ArPrior(config, StageGeometry(shape, None, num_classes))
    with torch.no_grad():
        for parameter in stage.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return stage


def images(count: int = 5) -> torch.Tensor:
    return Draw("images").rand(count, 3, 8, 8) * 2 - 1


def tokens(count: int = 5, shape: ImageShape = TOKENS) -> torch.Tensor:
    size = (count, shape.channels, shape.size, shape.size)
    return Draw("tokens").randint(0, shape.tokens or 1, *size).float()


def context(count: int = 5, step: int = 0) -> TrainContext:
    return TrainContext(Draw(0, step), labels=torch.arange(count) % CLASSES, step=step)


def request(first: int = 0, count: int = 4, seed: int = 7, **options: Any) -> SampleRequest:
    labels = torch.arange(first, first + count) % CLASSES
    return SampleRequest(count, ImageDraw(seed, "s", first, count), labels, **options)


def spec(steps: int = 4, **training: Any) -> dict[str, Any]:
    """Both stages on 8x8 shapes."""
    return {
        "name": "tiny-tokens",
        "data": {"source": "shapes", "config": {"size": 8, "count": 64, "test_count": 16}},
        "stages": [
            {"name": "prior", "kind": "ar-prior.v1", "config": PRIOR},
            {"name": "decode", "kind": "vq-autoencoder.v1", "config": VQ},
        ],
        "training": {
            "batch_size": 8,
            "losses": [],
            "compile": False,
            "optimizer": {"lr": 0.002, "eps": 1e-4},
            "phases": [
                {"name": "autoencoder", "train": ["decode"], "steps": steps},
                {"name": "prior", "train": ["prior"], "steps": steps},
            ],
            **training,
        },
        "evaluation": {"metrics": [], "extractor": "small"},
    }
