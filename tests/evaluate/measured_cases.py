"""A small model for tests of evaluation."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from cascadezoo import Cascade, __version__
from cascadezoo.model_folder.integrity import seal
from cascadezoo.model_folder.layout import read_config
from cascadezoo.model_folder.trained_spec import published_spec

SPEC: dict[str, Any] = {
    "name": "measured",
    "description": "Noise that <script>nobody</script> *trained*.",
    "data": {"source": "shapes", "config": {"size": 16, "count": 96, "test_count": 48}},
    "stages": [
        {
            "name": "coarse",
            "kind": "flow.v1",
            "config": {"channels": 8, "multipliers": [1, 1], "steps": 2},
        },
        {"name": "up", "kind": "pixelshuffle.v1", "config": {"hidden": 8}},
    ],
    "training": {
        "batch_size": 16,
        "losses": [],
        "phases": [
            {"name": "coarse", "train": ["coarse"], "steps": 4},
            {"name": "up", "train": ["up"], "steps": 2},
        ],
    },
    "evaluation": {
        "metrics": ["kid"],
        "extractor": "small",
        "samples": 40,
        "subsets": 8,
        "subset_size": 16,
        "batch_size": 20,
    },
}


def untrained(folder: Path, **changes: Any) -> Path:
    """Save a model without figures; its samples are noise."""
    spec = json.loads(json.dumps(SPEC)) | changes
    cascade = Cascade.from_spec(spec)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in cascade.parameters():  # the output of an untrained flow is zero
            weight.add_(0.2 * torch.randn(weight.shape, generator=random))
    return cascade.save_pretrained(folder)


def copied(source: Path, folder: Path) -> Path:
    return Path(shutil.copytree(source, folder))


def change_metrics(
    model: Path, change: Callable[[dict[str, Any]], None], *, reseal: bool = True
) -> None:
    """Change metrics.json; with ``reseal`` also update its sha256."""
    path = model / "metrics.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    if reseal:
        resealed(model)


def resealed(model: Path) -> None:
    seal(model, published_spec(model, read_config(model)), __version__)


def figures_of(model: Path) -> dict[str, dict[str, Any]]:
    rows = json.loads((model / "metrics.json").read_text())["figures"]
    return {row["name"]: row for row in rows}
