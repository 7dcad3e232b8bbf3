"""A small untrained cascade of diffusion stages."""

from __future__ import annotations

from typing import Any

import torch

from cascadezoo import Cascade

UNET = {
    "channels": 8,
    "multipliers": [1],
    "timesteps": 8,
    "schedule": "cosine",
    "prediction": "v",
}

CDM: dict[str, Any] = {
    "name": "cdm",
    "data": {"source": "shapes", "config": {"size": 16, "count": 64, "test_count": 48}},
    "stages": [
        {"name": "coarse", "kind": "unet-diffusion.v1", "config": {**UNET, "steps": 4}},
        {"name": "sr", "kind": "diffusion-sr.v1", "config": {**UNET, "steps": 2}},
    ],
    "training": {
        "losses": [],
        "batch_size": 16,
        "phases": [{"name": "p", "train": ["coarse"], "steps": 1}],
    },
    "evaluation": {"extractor": "small", "samples": 20, "subset_size": 10, "batch_size": 7},
}


def untrained(spec: dict[str, Any]) -> Cascade:
    """An untrained cascade whose output depends on all sampling options."""
    cascade = Cascade.from_spec(spec)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in cascade.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=random))
    return cascade.eval()
