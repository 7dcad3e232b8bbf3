"""Whether samples are copies: how near they lie to training images, as against test images."""

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
    """A sample and the training image that lies nearest to it.

    Args:
        sample: the sample's number.
        real: the number of the training image in its split.
        distance: Euclidean, between their features.
    """

    sample: int
    real: int
    distance: float


def measure(config: EmptyConfig, given: MetricCascade) -> dict[str, Measured]:
    """The data-copying test of Meehan et al. 2020 (arXiv:2004.05675), over all of feature space.

    Returns:
        By part: "" is the chance that a sample lies nearer to its nearest training image than a
        real test image to its own: 0.5 where samples are as new as test images are, 1 where
        they are copies; ``closest`` is the share of samples that lie nearer than the nearest
        hundredth of the test images, 0.01 by chance.

    Raises:
        DataError: the data have no test images.
    """
    test = given.split("test")
    train = given.split("train")
    count = min(given.n, len(test))
    features = [
        real_features(
            data, given.extractor, count=rows, precision=given.precision, cache=given.cache
        )
        for data, rows in ((train, len(train)), (test, count))
    ]
    usual = nearest_rows(features[1], features[0])[0].cpu()
    own = nearest_rows(_sampled(given), features[0])[0].cpu()
    chance, z = nearer(own, usual)
    n, m = len(own), len(usual)
    std = math.sqrt((n + m + 1) / (12 * n * m))
    limit = usual.quantile(_CLOSEST)
    settings = {"test_images": count, "train_images": len(train)}
    return {
        "": Measured(
            chance,
            std,
            tolerance=TOLERANCE * std,
            n_real=count,
            split="train",
            note=f"z = {z:+.1f} (above 3: copies); 0.5 is as near as test images are",
            settings=settings,
        ),
        "closest": share_of(
            own < limit,
            n_real=count,
            split="train",
            note=f"{_CLOSEST} by chance",
            settings=settings,
        ),
    }


def nearest(given: MetricCascade, count: int = 16) -> list[Nearest]:
    """The samples that lie nearest to a training image, for people to look at.

    Args:
        given: as :func:`measure` gets it.
        count: how many.

    Returns:
        The nearest first.
    """
    train = given.split("train")
    real = real_features(train, given.extractor, precision=given.precision, cache=given.cache)
    distances, rows = nearest_rows(_sampled(given), real)
    # The features of real images stand in the order in which they are chosen.
    numbers = torch.from_numpy(choose_real(len(train), len(train)))
    first = distances.argsort(stable=True)[:count].tolist()
    return [Nearest(i, int(numbers[rows[i]]), float(distances[i])) for i in first]


def nearest_rows(features: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest of the real vectors to each of the others.

    Args:
        features: floating [N, D].
        real: floating [M, D], M at least 1, on the same device.

    Returns:
        Euclidean distances float32 [N], and rows of ``real``, int64 [N].
    """
    squares = real.square().sum(dim=1)
    distances, rows = [], []
    for part in torch.split(features, _CHUNK):
        # Up to what all rows share. Rounding hides small differences, so the nearest few are
        # compared once more, exactly.
        rough = squares - 2 * part @ real.T
        few = rough.topk(min(_CANDIDATES, len(real)), largest=False).indices
        exact = (part[:, None] - real[few]).double().square().sum(dim=2)
        least = exact.min(dim=1)
        distances.append(least.values.sqrt().float())
        rows.append(few.gather(1, least.indices[:, None])[:, 0])
    return torch.cat(distances), torch.cat(rows)


def nearer(own: Tensor, usual: Tensor) -> tuple[float, float]:
    """How often one distance is below another: the Mann-Whitney statistic, ties counted half.

    Args:
        own: distances [N].
        usual: distances [M].

    Returns:
        The chance that one of ``own`` is below one of ``usual``, and its z-score under the
        hypothesis that both are of one distribution; positive where ``own`` are nearer. (It is
        Meehan's Z_U with the sign turned.)
    """
    n, m = len(own), len(usual)
    ordered = usual.sort().values
    below = torch.searchsorted(ordered, own.contiguous(), right=False)
    upto = torch.searchsorted(ordered, own.contiguous(), right=True)
    # Those of ``usual`` above each of ``own``, and half of those that equal it.
    wins = (m - upto).double() + (upto - below).double() / 2
    chance = float(wins.mean()) / m
    return chance, (chance - 0.5) / math.sqrt((n + m + 1) / (12 * n * m))


def _sampled(given: MetricCascade) -> Tensor:
    found = sample_features(given.samples, given.extractor, given.n, precision=given.precision)
    return found.features
