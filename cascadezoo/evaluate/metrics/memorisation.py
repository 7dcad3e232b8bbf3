"""Detect copies: compare the distance of samples and of test images to training images."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cascadezoo.evaluate.evaluate_sampler import sample_features
from cascadezoo.evaluate.metrics.base import Measured, MetricCascade
from cascadezoo.evaluate.metrics.mean_scores import TOLERANCE, share_of
from cascadezoo.evaluate.real_features import choose_real, real_features
from cascadezoo.spec.configs import EmptyConfig

__all__ = ["Nearest", "measure", "nearer", "nearest", "nearest_rows"]

_CHUNK = 256
_CANDIDATES = 8
_CLOSEST = 0.01


@dataclass(frozen=True, slots=True)
class Nearest:
    """A sample and its nearest training image.

    Args:
        sample: the index of the sample.
        real: the index of the training image in its split.
        distance: the Euclidean distance of their features.
    """

    sample: int
    real: int
    distance: float


def measure(config: EmptyConfig, inputs: MetricCascade) -> dict[str, Measured]:
    """The data-copying test of Meehan et al. 2020 (arXiv:2004.05675) on the whole feature space.

    Returns:
        By part: "" is the probability that a sample is nearer to its nearest training image than a
        real test image is: 0.5 if samples are as new as test images, 1 if they are copies.
        ``closest`` is the share of samples that are nearer than the nearest hundredth of the test
        images, 0.01 by chance.

    Raises:
        DataError: the dataset has no test images.
    """
    test = inputs.split("test")
    train = inputs.split("train")
    count = min(inputs.n, len(test))
    features = [
        real_features(
            data, inputs.extractor, count=rows, precision=inputs.precision, cache=inputs.cache
        )
        for data, rows in ((train, len(train)), (test, count))
    ]
    reference = nearest_rows(features[1], features[0])[0].cpu()
    samples = nearest_rows(_sampled(inputs), features[0])[0].cpu()
    chance, z = nearer(samples, reference)
    n, m = len(samples), len(reference)
    std = math.sqrt((n + m + 1) / (12 * n * m))
    limit = reference.quantile(_CLOSEST)
    settings = {"test_images": count, "train_images": len(train)}
    return {
        "": Measured(
            chance,
            std,
            tolerance=TOLERANCE * std,
            n_real=count,
            split="train",
            note=f"z = {z:+.1f} (above 3: copies); test images have 0.5",
            settings=settings,
        ),
        "closest": share_of(
            samples < limit,
            n_real=count,
            split="train",
            note=f"{_CLOSEST} by chance",
            settings=settings,
        ),
    }


def nearest(inputs: MetricCascade, count: int = 16) -> list[Nearest]:
    """The samples that are nearest to a training image, for inspection.

    Args:
        inputs: the input of :func:`measure`.
        count: number of samples.

    Returns:
        The samples, the nearest first.
    """
    train = inputs.split("train")
    real = real_features(train, inputs.extractor, precision=inputs.precision, cache=inputs.cache)
    distances, rows = nearest_rows(_sampled(inputs), real)
    # The features of real images are in the order of choose_real.
    indices = torch.from_numpy(choose_real(len(train), len(train)))
    first = distances.argsort(stable=True)[:count].tolist()
    return [Nearest(i, int(indices[rows[i]]), float(distances[i])) for i in first]


def nearest_rows(features: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Find the nearest real vector of each vector.

    Args:
        features: floating [N, D].
        real: floating [M, D], M at least 1, on the same device.

    Returns:
        Euclidean distances, float32 [N], and row indices of ``real``, int64 [N].
    """
    squares = real.square().sum(dim=1)
    distances, rows = [], []
    for part in torch.split(features, _CHUNK):
        # Squared distances up to a constant per row. Rounding hides small differences, so the
        # nearest candidates are compared again in float64.
        rough = squares - 2 * part @ real.T
        few = rough.topk(min(_CANDIDATES, len(real)), largest=False).indices
        exact = (part[:, None] - real[few]).double().square().sum(dim=2)
        nearest_few = exact.min(dim=1)
        distances.append(nearest_few.values.sqrt().float())
        rows.append(few.gather(1, nearest_few.indices[:, None])[:, 0])
    return torch.cat(distances), torch.cat(rows)


def nearer(samples: Tensor, reference: Tensor) -> tuple[float, float]:
    """The Mann-Whitney statistic: how often one distance is below another, with ties as half.

    Args:
        samples: distances [N].
        reference: distances [M].

    Returns:
        The probability that one of ``samples`` is below one of ``reference``, and its z-score under
        the hypothesis of equal distributions, which is positive if ``samples`` are nearer. (It is
        Meehan's Z_U with the opposite sign.)
    """
    n, m = len(samples), len(reference)
    ordered = reference.sort().values
    below = torch.searchsorted(ordered, samples.contiguous(), right=False)
    not_above = torch.searchsorted(ordered, samples.contiguous(), right=True)
    # The values of ``reference`` above each of ``samples``, plus half of the equal ones.
    wins = (m - not_above).double() + (not_above - below).double() / 2
    chance = float(wins.mean()) / m
    return chance, (chance - 0.5) / math.sqrt((n + m + 1) / (12 * n * m))


def _sampled(inputs: MetricCascade) -> Tensor:
    sampled = sample_features(
        inputs.samples, inputs.extractor, inputs.n, precision=inputs.precision
    )
    return sampled.features
