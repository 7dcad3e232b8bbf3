"""A ResNet-50 trained from scratch by torchvision's recipe, and its accuracy on test images."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cascadezoo.data.base import ImageData
from cascadezoo.evaluate.features.base import Precision
from cascadezoo.evaluate.metrics.classifier import (
    class_labels,
    require_training_images,
    write_cache,
)
from cascadezoo.evaluate.real_features import choose_real, features_folder
from cascadezoo.util.rng import derive_seed, seed_global

__all__ = ["VERSION", "ResNetRecipe", "label_ranks", "real_ranks", "train_resnet50"]

VERSION = "resnet50-v1"
"""Changes whenever the same images and labels would give a different classifier."""

# torchvision's references/classification/train.py, as its ResNet-50 was trained (weights V1).
BATCH = 256
RATE = 0.1
MOMENTUM = 0.9
WEIGHT_DECAY = 1e-4
DROPS = 3
"""The rate falls to a tenth after each of this many equal parts: every 30 of 90 epochs."""
CROP_SCALE = (0.08, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)
RESIZE = 256 / 224
"""The size that test images are resized to, relative to the centre that is cropped from them."""
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

SMALLEST_CROP = 32
"""ResNet-50 halves its input five times."""

_LOG = logging.getLogger("cascadezoo")
_CHUNK = 250


@dataclass(frozen=True, slots=True, kw_only=True)
class ResNetRecipe:
    """How a ResNet-50 is trained.

    Args:
        classes: number of classes.
        size: height and width of the images; the network sees 7/8 of it, at least
            :data:`SMALLEST_CROP` pixels.
        epochs: number of epochs; torchvision's recipe has 90.
        seed: seed of weights, order and augmentation.
        flip: whether to mirror images at random, as torchvision does.
        device: the device of the classifier.
        precision: its precision; ``bf16`` uses autocast.
    """

    classes: int
    size: int
    epochs: int = 90
    seed: int = 0
    flip: bool = True
    device: torch.device
    precision: Precision = "fp32"

    @property
    def crop(self) -> int:
        """Height and width of the network's input: 224 for images of 256 pixels."""
        return max(SMALLEST_CROP, round(self.size / RESIZE))

    def rate(self, epoch: int, batch: int) -> float:
        """The learning rate of an epoch; it is in proportion to the batch (Goyal et al. 2017).

        Args:
            epoch: from 0.
            batch: number of images of a batch.
        """
        return float(RATE * batch / BATCH * 0.1 ** (epoch * DROPS // self.epochs))

    def describe(self) -> dict[str, bool | int | str]:
        """The settings that a figure records."""
        return {
            "classifier": VERSION,
            "epochs": self.epochs,
            "classifier_seed": self.seed,
            "flip": self.flip,
            "crop": self.crop,
            "classifier_precision": self.precision,
        }


def train_resnet50(images: Tensor, labels: Tensor, recipe: ResNetRecipe) -> torch.nn.Module:
    """Train by SGD on random crops, in epochs over shuffled images.

    Args:
        images: uint8 [N, C, H, W] with 1 or 3 channels, on any device; N at least 2.
        labels: int64 [N], below ``recipe.classes``.
        recipe: how to train.

    Returns:
        The trained network in evaluation mode, without gradients.

    Raises:
        InputError: there are fewer than two images.
    """
    # torchvision takes seconds to import.
    from torchvision.models import resnet50
    from torchvision.transforms import Compose, RandomHorizontalFlip, RandomResizedCrop

    count = len(images)
    require_training_images(count)
    batch = min(BATCH, count)
    crop = RandomResizedCrop(recipe.crop, CROP_SCALE, CROP_RATIO, antialias=True)
    augment = Compose([crop, RandomHorizontalFlip()] if recipe.flip else [crop])
    # torchvision's transforms draw from the global generator.
    with torch.random.fork_rng(devices=[]):
        seed_global(derive_seed("resnet50", recipe.seed) % 2**63)
        net: torch.nn.Module = resnet50(weights=None, num_classes=recipe.classes)
        net.to(recipe.device).to(memory_format=torch.channels_last).train()
        optimizer = torch.optim.SGD(net.parameters(), RATE, MOMENTUM, weight_decay=WEIGHT_DECAY)
        for epoch in range(recipe.epochs):
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate(epoch, batch)
            order = torch.randperm(count)[: count // batch * batch]
            for rows in torch.split(order, batch):
                part = images[rows.to(images.device)].to(recipe.device)
                pixels = _normalised(torch.stack([augment(image) for image in part]))
                loss = F.cross_entropy(
                    _logits(net, pixels, recipe), labels[rows.to(labels.device)].to(recipe.device)
                )
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    return net.eval().requires_grad_(False)


def label_ranks(net: torch.nn.Module, test: ImageData, recipe: ResNetRecipe) -> Tensor:
    """How many classes the network rates higher than the true one, on resized centres.

    Args:
        net: a trained network.
        test: images with labels.
        recipe: how it was trained.

    Returns:
        int64 [N] on the CPU: 0 is right, below 5 is right among the first five.

    Raises:
        InputError: the images have no labels.
    """
    from torchvision.transforms.functional import center_crop, resize

    labels = class_labels(test)
    size = [round(recipe.crop * RESIZE)]
    ranks = []
    with torch.inference_mode():
        for first in range(0, len(test), _CHUNK):
            part = torch.from_numpy(test.images[first : first + _CHUNK]).to(recipe.device)
            centres = center_crop(resize(part, size, antialias=True), [recipe.crop])
            logits = _logits(net, _normalised(centres), recipe)
            true = labels[first : first + _CHUNK].to(recipe.device)[:, None]
            # Not "higher than": a logit that is not a number counts as wrong.
            ranks.append((~(logits <= logits.gather(1, true))).sum(1).cpu())
    return torch.cat(ranks)


def real_ranks(
    train: ImageData,
    test: ImageData,
    count: int,
    recipe: ResNetRecipe,
    *,
    cache: Path | None = None,
) -> Tensor:
    """The ranks of a network of real images: computed once, then read from disk.

    Args:
        train: the images that it learns from.
        test: the images that it is tested on.
        count: number of training images, chosen independently of the seed.
        recipe: how to train.
        cache: the cache folder; None uses that of the real images' features.

    Returns:
        See :func:`label_ranks`.

    Raises:
        InputError: images have no labels, or there are fewer than ``count``.
    """
    rows = choose_real(len(train), count)
    key = {
        "train": train.digest,
        "test": test.digest,
        "shape": list(train.images.shape[1:]),
        "count": count,
        "classes": recipe.classes,
        "device": recipe.device.type,
        **recipe.describe(),
    }
    text = json.dumps(key, sort_keys=True)
    folder = features_folder() if cache is None else cache
    path = folder / f"resnet50-{hashlib.sha256(text.encode()).hexdigest()[:32]}.safetensors"
    ranks = _read(path, len(test))
    if ranks is None:
        images, labels = torch.from_numpy(train.images[rows]), class_labels(train)[rows]
        ranks = label_ranks(train_resnet50(images, labels, recipe), test, recipe)
        write_cache(path, {"ranks": ranks}, text)
    return ranks


def _logits(net: torch.nn.Module, pixels: Tensor, recipe: ResNetRecipe) -> Tensor:
    with torch.autocast(recipe.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
        logits: Tensor = net(pixels.contiguous(memory_format=torch.channels_last))
    return logits.float()


def _normalised(images: Tensor) -> Tensor:
    """uint8 [N, C, H, W] to float [N, 3, H, W] with ImageNet's mean and deviation."""
    mean, std = (images.new_tensor(row, dtype=torch.float32) for row in (MEAN, STD))
    pixels = images.float().div(255).expand(-1, 3, -1, -1)
    return (pixels - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)


def _read(path: Path, count: int) -> Tensor | None:
    """Cached ranks, or None. A damaged file is logged."""
    try:
        ranks = load_file(path)["ranks"]
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, KeyError) as error:
        _LOG.warning("training a ResNet-50 again: %s cannot be read: %s", path, error)
        return None
    return ranks if ranks.shape == (count,) else None
