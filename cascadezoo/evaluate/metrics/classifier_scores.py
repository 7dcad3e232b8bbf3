"""Classification Accuracy Score and label agreement: what a classifier makes of samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from cascadezoo.data.base import ImageData
from cascadezoo.errors import InputError
from cascadezoo.evaluate.configs import ClassifierMetricConfig
from cascadezoo.evaluate.features.small_network import SmallNet
from cascadezoo.evaluate.metrics.base import Measured, MetricCascade
from cascadezoo.evaluate.metrics.classifier import (
    Recipe,
    predict,
    real_classifier,
    shrink,
    train_classifier,
)
from cascadezoo.evaluate.metrics.mean_scores import TOLERANCE, share_of

__all__ = ["TRAINING_SPREAD", "measure_agreement", "measure_cas"]

TRAINING_SPREAD = 0.02
"""Added to the tolerance where a classifier is trained: rounding alone makes it another one."""

_BATCH = 500


def measure_cas(config: ClassifierMetricConfig, given: MetricCascade) -> dict[str, Measured]:
    """Classification Accuracy Score (Ravuri and Vinyals 2019, arXiv:1905.10887).

    Returns:
        By part: "" is the accuracy, in [0, 1], on real test images of a classifier that learned
        from samples alone; ``real`` that of the same classifier that learned from as many real
        training images.

    Raises:
        InputError: the cascade knows no labels, or there are fewer than two images.
        DataError: the data have no test images.
    """
    recipe = _recipe(config, given, "cas")
    train, test = given.split("train"), given.split("test")
    count = min(given.n, len(train))
    images = torch.cat([shrink(batch) for batch in given.samples.batches(count)])
    labels = torch.arange(count) % recipe.classes
    own = train_classifier(images, labels, recipe)
    usual = real_classifier(train, count, recipe, cache=given.cache)
    rest: dict[str, Any] = {
        "n": count,
        "n_real": len(test),
        "extractor": "",
        "split": "test",
        "settings": recipe.described(),
    }
    return {
        "": _accuracy(own, test, note=f"learned from {count} samples", **rest),
        "real": _accuracy(usual, test, note=f"learned from {count} real images", **rest),
    }


def measure_agreement(config: ClassifierMetricConfig, given: MetricCascade) -> dict[str, Measured]:
    """How many samples a classifier of real images takes for what they were asked to be.

    Returns:
        By part: "" is that share, in [0, 1]; ``real`` is the classifier's accuracy on real test
        images, which a faithful cascade's samples come up to.

    Raises:
        InputError: the cascade knows no labels.
        DataError: the data have no test images.
    """
    recipe = _recipe(config, given, "label-agreement")
    train, test = given.split("train"), given.split("test")
    learned = min(config.real_images, len(train))
    net = real_classifier(train, learned, recipe, cache=given.cache)
    found = torch.cat([predict(net, batch) for batch in given.samples.batches(given.n)])
    asked = torch.arange(given.n) % recipe.classes
    rest: dict[str, Any] = {
        "extractor": "",
        "split": "test",
        "settings": {**recipe.described(), "real_images": learned},
    }
    agreed = share_of(found == asked, **rest, n_real=0)
    spread = agreed.std or 0.0
    return {
        "": share_of(
            found == asked,
            n_real=0,
            tolerance=TOLERANCE * spread + TRAINING_SPREAD,
            note=f"by a classifier that learned from {learned} real images",
            **rest,
        ),
        "real": _accuracy(net, test, n_real=len(test), note="on real test images", **rest),
    }


def _recipe(config: ClassifierMetricConfig, given: MetricCascade, metric: str) -> Recipe:
    cascade = given.cascade
    classes = cascade.resolved.num_classes
    if classes is None:
        raise InputError(
            f"{metric} asks what the samples' labels are, and {cascade.spec.name} was trained "
            "without labels",
            hint=f"leave {metric} out, or train with data that have labels",
            code="input-metric-needs-labels",
            name=metric,
        )
    return Recipe(
        classes=classes,
        epochs=config.epochs,
        seed=config.seed,
        flip=cascade.spec.data.flip,
        device=cascade.device,
        precision=given.precision,
    )


def _accuracy(net: SmallNet, test: ImageData, **rest: Any) -> Measured:
    right = torch.cat([_right(net, test, first) for first in range(0, len(test), _BATCH)])
    found = share_of(right)
    tolerance = TOLERANCE * (found.std or 0.0) + TRAINING_SPREAD
    return Measured(found.value, found.std, tolerance=tolerance, **rest)


def _right(net: SmallNet, test: ImageData, first: int) -> Tensor:
    if test.labels is None:
        raise InputError(
            f"the {test.split} images have no labels, and accuracy is of labels",
            hint='give "labels" in the data\'s config',
            code="input-accuracy-no-labels",
            split=test.split,
        )
    rows = slice(first, first + _BATCH)
    labels = torch.from_numpy(np.ascontiguousarray(test.labels[rows]))
    return predict(net, torch.from_numpy(test.images[rows])) == labels
