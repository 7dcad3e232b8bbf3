"""Shared by tests of the trainer: small data, and trainings that are stopped and resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.data.base import ImageData
from cascadezoo.data.loader import DeviceLoader
from cascadezoo.train.checkpoint import CheckpointStore
from cascadezoo.train.engine import make_accelerator
from cascadezoo.train.trainer import Trainer

COUNT = 64


def image_data() -> ImageData:
    images = np.random.default_rng(0).integers(0, 256, (COUNT, 3, 8, 8), dtype=np.uint8)
    return ImageData(images, np.arange(COUNT) % 8, "train")


def trainer(cascade: Cascade, folder: Path | None = None, **options: Any) -> Trainer:
    data = image_data()
    loader = DeviceLoader(data, batch_size=8, seed=0, flip=True, device="cpu")
    store = None if folder is None else CheckpointStore(folder)
    options.setdefault("data", data)
    device = make_accelerator(torch.device("cpu"), "fp32")
    return Trainer(cascade, loader, device, store=store, **options)


def state(cascade: Cascade) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in cascade.stages.state_dict().items()}


def equal(a: Cascade, b: Cascade) -> bool:
    one, two = state(a), state(b)
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


class StopAfter:
    """Requests a stop at the n-th call."""

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self) -> str | None:
        self.left -= 1
        return "a test" if self.left == 0 else None
