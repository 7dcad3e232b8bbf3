"""Inception Score by torch-fidelity."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cascadezoo.errors import InputError
from cascadezoo.evaluate.configs import INCEPTION_SPLITS as SPLITS
from cascadezoo.evaluate.features.base import FeatureExtractor, logits_of
from cascadezoo.evaluate.metrics.base import Measured, MetricFeatures
from cascadezoo.spec.configs import EmptyConfig

__all__ = ["SPLITS", "InceptionScore", "inception_score", "measure", "prepare"]

_UNLIKELY = -700.0
"""Lower bound of logits relative to the largest one, which avoids the logarithm of zero. The
probability at the bound is below 1e-304."""


@dataclass(frozen=True, slots=True)
class InceptionScore:
    """Mean and standard deviation over the splits. The mean is in [1, number of classes]."""

    mean: float
    std: float


def inception_score(logits: Tensor, *, splits: int = SPLITS, seed: int = 0) -> InceptionScore:
    """``exp(E KL(p(y|x) || p(y)))`` of each split (Salimans et al. 2016), in float64.

    Args:
        logits: logits of generated images, floating [N, classes].
        splits: number of parts that the shuffled images are split into, at least 1.
        seed: seed of the shuffling.

    Returns:
        The score and its spread over the splits.

    Raises:
        InputError: a split has fewer than two images.
    """
    _require_splits(len(logits), splits)
    # torch-fidelity takes seconds to import.
    from torch_fidelity.metric_isc import (
        KEY_METRIC_ISC_MEAN,
        KEY_METRIC_ISC_STD,
        isc_features_to_metric,
    )

    rows = logits.cpu().double()
    rows = (rows - rows.amax(dim=1, keepdim=True)).clamp(min=_UNLIKELY)
    result = isc_features_to_metric(  # type: ignore[no-untyped-call]
        rows, splits=splits, shuffle=True, rng_seed=seed % 2**32
    )
    return InceptionScore(result[KEY_METRIC_ISC_MEAN], result[KEY_METRIC_ISC_STD])


def measure(config: EmptyConfig, features: MetricFeatures) -> Measured:
    """The metric ``inception-score``, which uses no real images.

    Its tolerance is the spread over splits. Each split has a tenth of the images, so the spread is
    about three times the standard error of the score.
    """
    extractor = features.extractor
    if extractor is None:
        raise InputError(
            "the Inception Score needs a feature extractor with a classifier, but none was given",
            hint="pass the extractor of the features to MetricFeatures",
            code="input-no-extractor",
        )
    _require_splits(features.n, SPLITS)
    # A dry run first, so that a missing classifier is an error before sampling.
    empty = torch.zeros(1, features.num_features, device=extractor.device)
    classes = logits_of(extractor, empty).shape[1]
    score = inception_score(logits_of(extractor, features.generated), seed=features.seed)
    settings: dict[str, int | str] = {"splits": SPLITS, "classes": classes}
    if extractor.head_sha256:
        settings["head_sha256"] = extractor.head_sha256
    return Measured(score.mean, score.std, n_real=0, settings=settings)


def prepare(config: EmptyConfig, extractor: FeatureExtractor, size: int) -> None:
    """Refuse an extractor without a classifier, before training.

    Raises:
        InputError: the extractor has no classifier.
        WeightsUnavailableError: the weights of its classifier are unavailable.
    """
    extractor.logits(torch.zeros(1, extractor.num_features, device=extractor.device))


def _require_splits(n: int, splits: int) -> None:
    if splits < 1 or n < 2 * splits:
        raise InputError(
            f"an Inception Score over {splits} splits needs at least {2 * max(splits, 1)} images, "
            f"not {n}",
            hint="use more images; papers use 50,000",
            code="input-too-few-images",
            splits=splits,
            count=n,
            needed=2 * max(splits, 1),
        )
