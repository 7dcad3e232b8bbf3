"""Classification Accuracy Score with torchvision's ResNet-50: top-1, top-5, and by class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from cascadezoo.errors import InputError
from cascadezoo.evaluate.configs import ResNetScoreConfig
from cascadezoo.evaluate.metrics.base import Measured, MetricCascade
from cascadezoo.evaluate.metrics.classifier_scores import TRAINING_SPREAD
from cascadezoo.evaluate.metrics.mean_scores import share_of
from cascadezoo.evaluate.metrics.resnet50 import (
    ResNetRecipe,
    label_ranks,
    real_ranks,
    train_resnet50,
)

__all__ = ["measure"]

TOP = 5


def measure(config: ResNetScoreConfig, inputs: MetricCascade) -> dict[str, Measured]:
    """Accuracy on real test images of a ResNet-50 trained only on samples (Ravuri & Vinyals 2019).

    Returns:
        By part: "" is the accuracy, in [0, 1], ``top5`` the share of images whose label is among
        the five best (left out for up to five classes), ``class-K`` the accuracy on class K.
        ``real``, ``real-top5`` and ``real-class-K`` are those of the same network trained on as
        many real images.

    Raises:
        InputError: the cascade has no labels, or there are fewer than two images.
        DataError: the dataset has no test images.
    """
    cascade = inputs.cascade
    classes = cascade.resolved.num_classes
    if classes is None:
        raise InputError(
            f"metric cas-resnet50 needs labels, but {cascade.spec.name} was trained without labels",
            hint="leave cas-resnet50 out, or train on a dataset with labels",
            code="input-metric-needs-labels",
            name="cas-resnet50",
        )
    recipe = ResNetRecipe(
        classes=classes,
        size=cascade.resolved.image.size,
        epochs=config.epochs,
        seed=config.seed,
        flip=cascade.spec.data.flip,
        device=cascade.device,
        precision=inputs.precision,
    )
    train, test = inputs.split("train"), inputs.split("test")
    count = min(inputs.n, len(train))
    from_real = real_ranks(train, test, count, recipe, cache=inputs.cache)
    images = torch.cat([batch.cpu() for batch in inputs.samples.batches(count)])
    net = train_resnet50(images, torch.arange(count) % classes, recipe)
    from_samples = label_ranks(net, test, recipe)
    labels = torch.as_tensor(test.labels)
    rest: dict[str, Any] = {
        "n": count,
        "extractor": "",
        "split": "test",
        "settings": recipe.describe(),
    }
    return dict(
        [
            *_parts("", from_samples, labels, classes, f"trained on {count} samples", rest),
            *_parts("real", from_real, labels, classes, f"trained on {count} real images", rest),
        ]
    )


def _parts(
    name: str, ranks: Tensor, labels: Tensor, classes: int, note: str, rest: dict[str, Any]
) -> Iterator[tuple[str, Measured]]:
    """The accuracies of one network by the name of their figure."""
    prefix = f"{name}-" if name else ""

    def accuracy(correct: Tensor) -> Measured:
        share = share_of(correct, n_real=len(correct), note=note, **rest)
        return replace(share, tolerance=(share.tolerance or 0.0) + TRAINING_SPREAD)

    yield name, accuracy(ranks == 0)
    if classes > TOP:
        yield f"{prefix}top5", accuracy(ranks < TOP)
    for label in range(classes):
        rows = ranks[labels == label]
        if len(rows):
            yield f"{prefix}class-{label}", accuracy(rows == 0)
