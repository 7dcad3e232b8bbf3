"""Helpers of the tests of builds."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

TINY = "diffusion-pixelshuffle-vit-tiny"
QUICK = ["evaluation.metrics=[]"]


def weights(model: Path) -> dict[str, torch.Tensor]:
    rows = {}
    for path in sorted(model.glob("stages/*/model.safetensors")):
        for name, tensor in load_file(path).items():
            rows[f"{path.parent.name}/{name}"] = tensor
    assert rows
    return rows


def same(a: Path, b: Path) -> bool:
    one, two = weights(a), weights(b)
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)
