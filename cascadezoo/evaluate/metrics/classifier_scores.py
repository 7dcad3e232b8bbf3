"""Classification Accuracy Score and label agreement."""

from __future__ import annotations

from dataclasses import replace
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
    TrainingRecipe,
    predict,
    real_classifier,
    shrink,
    train_classifier,
)
from cascadezoo.evaluate.metrics.mean_scores import TOLERANCE, share_of

__all__ = ["TRAINING_SPREAD", "measure_agreement", "measure_cas"]

TRAINING_SPREAD = 0.02
"""Added to the tolerance of trained classifiers, which differ because of rounding alone."""

_BATCH = 500


def measure_cas(config: ClassifierMetricConfig, inputs: MetricCascade) -> dict[str, Measured]:
    """Classification Accuracy Score (Ravuri and Vinyals 2019, arXiv:1905.10887).

    Returns:
        By part: "" is the accuracy, in [0, 1], on real test images of a classifier trained only on
        samples. ``real`` is that of the same classifier trained on as many real images.

    Raises:
        InputError: the cascade has no labels, or there are fewer than two images.
        DataError: the dataset has no test images.
    """
    recipe = _recipe(config, inputs, "cas")
    train, test = inputs.split("train"), inputs.split("test")
    count = min(inputs.n, len(train))
    images = torch.cat([shrink(batch) for batch in inputs.samples.batches(count)])
    labels = torch.arange(count) % recipe.classes
    from_samples = train_classifier(images, labels, recipe)
    from_real = real_classifier(train, count, recipe, cache=inputs.cache)
    rest: dict[str, Any] = {
        "n": count,
        "n_real": len(test),
        "extractor": "",
        "split": "test",
        "settings": recipe.describe(),
    }
    return {
        "": _accuracy(from_samples, test, note=f"trained on {count} samples", **rest),
        "real": _accuracy(from_real, test, note=f"trained on {count} real images", **rest),
    }


def measure_agreement(config: ClassifierMetricConfig, inputs: MetricCascade) -> dict[str, Measured]:
    """The share of samples whose label a classifier of real images predicts.

    Returns:
        By part: "" is that share, in [0, 1]; ``real`` is the classifier's accuracy on real test
        images, which the share of a perfect cascade equals.

    Raises:
        InputError: the cascade has no labels.
        DataError: the dataset has no test images.
    """
    recipe = _recipe(config, inputs, "label-agreement")
    train, test = inputs.split("train"), inputs.split("test")
    n_train = min(config.real_images, len(train))
    net = real_classifier(train, n_train, recipe, cache=inputs.cache)
    predicted = torch.cat([predict(net, batch) for batch in inputs.samples.batches(inputs.n)])
    requested = torch.arange(inputs.n) % recipe.classes
    rest: dict[str, Any] = {
        "extractor": "",
        "split": "test",
        "settings": {**recipe.describe(), "real_images": n_train},
    }
    agreement = share_of(predicted == requested, **rest, n_real=0)
    spread = agreement.std or 0.0
    return {
        "": replace(
            agreement,
            tolerance=TOLERANCE * spread + TRAINING_SPREAD,
            note=f"by a classifier trained on {n_train} real images",
        ),
        "real": _accuracy(net, test, n_real=len(test), note="on real test images", **rest),
    }


def _recipe(config: ClassifierMetricConfig, inputs: MetricCascade, metric: str) -> TrainingRecipe:
    cascade = inputs.cascade
    classes = cascade.resolved.num_classes
    if classes is None:
        raise InputError(
            f"metric {metric} needs labels, but {cascade.spec.name} was trained without labels",
            hint=f"leave {metric} out, or train on a dataset with labels",
            code="input-metric-needs-labels",
            name=metric,
        )
    return TrainingRecipe(
        classes=classes,
        epochs=config.epochs,
        seed=config.seed,
        flip=cascade.spec.data.flip,
        device=cascade.device,
        precision=inputs.precision,
    )


def _accuracy(net: SmallNet, test: ImageData, **rest: Any) -> Measured:
    correct = torch.cat([_correct(net, test, first) for first in range(0, len(test), _BATCH)])
    accuracy = share_of(correct, **rest)
    tolerance = TOLERANCE * (accuracy.std or 0.0) + TRAINING_SPREAD
    return replace(accuracy, tolerance=tolerance)


def _correct(net: SmallNet, test: ImageData, first: int) -> Tensor:
    if test.labels is None:
        raise InputError(
            f"cannot measure accuracy: the {test.split} images have no labels",
            hint='set "labels" in the config of the data',
            code="input-accuracy-no-labels",
            split=test.split,
        )
    rows = slice(first, first + _BATCH)
    labels = torch.from_numpy(np.ascontiguousarray(test.labels[rows]))
    return predict(net, torch.from_numpy(test.images[rows])) == labels
