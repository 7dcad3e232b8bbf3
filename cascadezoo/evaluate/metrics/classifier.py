"""The small image classifier that CAS and label agreement train."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cascadezoo.data.base import ImageData
from cascadezoo.data.pixels import to_float
from cascadezoo.errors import InputError
from cascadezoo.evaluate.features.base import Precision
from cascadezoo.evaluate.features.small_network import SIZE, SmallNet
from cascadezoo.evaluate.real_features import choose_real, features_folder
from cascadezoo.util.rng import derive_seed, seed_global

__all__ = [
    "VERSION",
    "TrainingRecipe",
    "class_labels",
    "predict",
    "real_classifier",
    "require_training_images",
    "shrink",
    "train_classifier",
    "write_cache",
]

VERSION = "v1"
"""Changes whenever the same images and labels would give a different classifier."""

MIN_STEPS = 300
"""Minimum number of training steps, so that a classifier of few images is trained enough."""

BATCH = 64
PEAK_RATE = 0.1
WARM_UP = 0.15
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
SHIFT = 4

_LOG = logging.getLogger("cascadezoo")
_CHUNK = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRecipe:
    """How a classifier is trained.

    Args:
        classes: number of classes.
        epochs: number of epochs; more if they are fewer than :data:`MIN_STEPS` steps.
        seed: seed of weights, order and augmentation.
        flip: whether to mirror images at random.
        device: the device of the classifier.
        precision: its precision; ``bf16`` uses autocast.
    """

    classes: int
    epochs: int = 14
    seed: int = 0
    flip: bool = False
    device: torch.device
    precision: Precision = "fp32"

    def describe(self) -> dict[str, bool | int | str]:
        """The settings that a figure records."""
        return {
            "classifier": VERSION,
            "epochs": self.epochs,
            "classifier_seed": self.seed,
            "flip": self.flip,
            "classifier_precision": self.precision,
        }


def shrink(images: Tensor) -> Tensor:
    """Resize images for the classifier; images of the right size are not copied.

    Args:
        images: uint8 [N, C, H, W] with 1 or 3 channels.

    Returns:
        uint8 [N, C, 32, 32].
    """
    if images.shape[2:] == (SIZE, SIZE):
        return images
    size = (SIZE, SIZE)
    resized = F.interpolate(images.float(), size, mode="bicubic", antialias=True)
    return resized.clamp(0, 255).round().to(torch.uint8)


def require_training_images(count: int) -> None:
    """Check the number of images that a classifier learns from.

    Raises:
        InputError: there are fewer than two.
    """
    if count < 2:
        raise InputError(
            f"a classifier needs at least 2 training images, not {count}",
            hint="use more images",
            code="input-classifier-too-few",
            count=count,
        )


def class_labels(data: ImageData) -> Tensor:
    """The labels of images, int64 [N].

    Raises:
        InputError: the images have no labels.
    """
    if data.labels is None:
        raise InputError(
            f"cannot train or test a classifier: the {data.split} images have no labels",
            hint='set "labels" in the config of the data',
            code="input-classifier-no-labels",
            split=data.split,
        )
    return torch.from_numpy(data.labels).long()


def train_classifier(images: Tensor, labels: Tensor, recipe: TrainingRecipe) -> SmallNet:
    """Train by SGD with a one-cycle rate on shifted (and mirrored) images.

    Args:
        images: uint8 [N, C, 32, 32] on any device, N at least 2; see :func:`shrink`.
        labels: int64 [N], below ``recipe.classes``.
        recipe: how to train.

    Returns:
        The trained network, without gradients.

    Raises:
        InputError: there are fewer than two images.
    """
    count = len(images)
    require_training_images(count)
    batch = min(BATCH, count)
    per_epoch = count // batch
    total = max(MIN_STEPS, recipe.epochs * per_epoch)
    with torch.random.fork_rng(devices=[]):
        seed_global(derive_seed("classifier", recipe.seed) % 2**63)
        net = SmallNet(recipe.classes, norm=True)
    net.to(recipe.device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        net.parameters(), PEAK_RATE, MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / (WARM_UP * total), (total - step) / ((1 - WARM_UP) * total)),
    )
    # On the CPU, so that every device trains on the same images.
    generator = torch.Generator().manual_seed(derive_seed("classifier images", recipe.seed))
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(total):
        if len(order) < batch:
            order = torch.randperm(count, generator=generator)[: per_epoch * batch]
        rows, order = order[:batch], order[batch:]
        augmented = _augmented(
            images[rows.to(images.device)].to(recipe.device), recipe.flip, generator
        )
        with torch.autocast(recipe.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            logits = net(augmented.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits.float(), labels[rows.to(labels.device)].to(recipe.device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return net.fold().requires_grad_(False)


def predict(net: SmallNet, images: Tensor) -> Tensor:
    """Predict the class of each image.

    Args:
        net: a trained network.
        images: uint8 [N, C, H, W] with 1 or 3 channels.

    Returns:
        int64 [N], on the CPU.
    """
    device = next(net.parameters()).device
    rows = [torch.empty(0, dtype=torch.int64)]
    with torch.inference_mode():
        for part in torch.split(images, _CHUNK):
            pixels = to_float(shrink(part.to(device))).expand(-1, 3, -1, -1)
            logits = net(pixels.contiguous(memory_format=torch.channels_last))
            rows.append(logits.argmax(dim=1).cpu())
    return torch.cat(rows)


def real_classifier(
    real: ImageData, count: int, recipe: TrainingRecipe, *, cache: Path | None = None
) -> SmallNet:
    """A classifier of real images: trained once, then read from disk.

    Args:
        real: images with labels.
        count: number of training images, chosen independently of the seed.
        recipe: how to train.
        cache: the cache folder; None uses that of the real images' features.

    Raises:
        InputError: the images have no labels, or there are fewer than ``count``.
    """
    labels = class_labels(real)
    rows = choose_real(len(real), count)
    key: dict[str, Any] = {
        "data": real.digest,
        "split": real.split,
        "shape": list(real.images.shape[1:]),
        "count": count,
        "classes": recipe.classes,
        "device": recipe.device.type,
        "least_steps": MIN_STEPS,
        **recipe.describe(),
    }
    text = json.dumps(key, sort_keys=True)
    folder = features_folder() if cache is None else cache
    digest = hashlib.sha256(text.encode()).hexdigest()
    path = folder / f"classifier-{digest[:32]}.safetensors"
    with torch.random.fork_rng(devices=[]):
        net = SmallNet(recipe.classes).requires_grad_(False).eval()
    if _read(path, net):
        return net.to(recipe.device).to(memory_format=torch.channels_last)
    parts = [
        shrink(torch.from_numpy(real.images[rows[first : first + _CHUNK]]))
        for first in range(0, count, _CHUNK)
    ]
    net = train_classifier(torch.cat(parts), labels[rows], recipe)
    write_cache(path, net.state_dict(), text)
    return net


def _augmented(images: Tensor, flip: bool, generator: torch.Generator) -> Tensor:
    """Shift each image by up to four pixels and, with ``flip``, mirror it at random.

    Args:
        images: uint8 [N, C, 32, 32].
        flip: whether to mirror images.
        generator: a generator on the CPU.

    Returns:
        float [N, 3, 32, 32] in [-1, 1].
    """
    count, _, height, width = images.shape
    device = images.device
    shift = torch.randint(0, 2 * SHIFT + 1, (2, count, 1), generator=generator).to(device)
    mirrored = torch.rand(count, generator=generator).to(device) < 0.5
    pixels = F.pad(to_float(images), [SHIFT] * 4, mode="reflect")
    down = shift[0] + torch.arange(height, device=device)
    across = shift[1] + torch.arange(width, device=device)
    if flip:
        across = torch.where(mirrored[:, None], across.flip(1), across)
    rows = torch.arange(count, device=device)[:, None, None]
    moved = pixels.permute(0, 2, 3, 1)[rows, down[:, :, None], across[:, None, :]]
    return moved.permute(0, 3, 1, 2).expand(-1, 3, -1, -1)


def _read(path: Path, net: SmallNet) -> bool:
    """Load cached weights; return whether that succeeded. A damaged file is logged."""
    try:
        weights = load_file(path)
        net.load_state_dict(weights)
    except FileNotFoundError:
        return False
    except (OSError, SafetensorError, RuntimeError) as error:
        _LOG.warning("retraining the classifier in %s: the file cannot be read: %s", path, error)
        return False
    return True


def write_cache(path: Path, tensors: Mapping[str, Tensor], key: str) -> None:
    """Cache tensors with the key of their file. A failure is only logged."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            part = Path(folder) / path.name
            rows = {name: value.cpu().contiguous() for name, value in tensors.items()}
            save_file(rows, part, metadata={"key": key})
            part.replace(path)
    except (OSError, SafetensorError) as error:
        _LOG.warning("cannot cache the classifier of the real images in %s: %s", path, error)
