"""Inception Score, with torch-fidelity's arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cascadezoo.errors import InputError
from cascadezoo.evaluate.metrics.base import Measured, MetricFeatures
from cascadezoo.spec.configs import EmptyConfig

__all__ = ["SPLITS", "InceptionScore", "inception_score", "measure"]

SPLITS = 10
"""Into how many parts the images are split, as Salimans et al. 2016 do."""

_UNLIKELY = -700.0
"""Logits below the largest by more than this are classes of a share below 1e-304: raised to it,
so that no logarithm of zero is taken."""


@dataclass(frozen=True, slots=True)
class InceptionScore:
    """Mean and standard deviation over the splits. At least 1, at most the number of classes."""

    mean: float
    std: float


def inception_score(logits: Tensor, *, splits: int = SPLITS, seed: int = 0) -> InceptionScore:
    """``exp(E KL(p(y|x) || p(y)))`` of each split (Salimans et al. 2016), in float64.

    Args:
        logits: of generated images, floating [N, classes].
        splits: how many parts the shuffled images are split into, at least 1.
        seed: of the shuffling.

    Returns:
        The score and its spread over the splits.

    Raises:
        InputError: fewer than two images in a split.
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
    found = isc_features_to_metric(  # type: ignore[no-untyped-call]
        rows, splits=splits, shuffle=True, rng_seed=seed % 2**32
    )
    return InceptionScore(found[KEY_METRIC_ISC_MEAN], found[KEY_METRIC_ISC_STD])


def measure(config: EmptyConfig, features: MetricFeatures) -> Measured:
    """The Inception Score as ``evaluation.metrics`` of a spec asks for it.

    No real image is looked at. Its tolerance is the spread over splits, each of a tenth of the
    images: about three times the standard error of the score.
    """
    extractor = features.extractor
    if extractor is None:
        raise InputError(
            "the Inception Score needs the classifier of a feature extractor, and there is none",
            hint="give MetricFeatures the extractor that made the features",
            code="input-no-extractor",
        )
    _require_splits(features.n, SPLITS)
    # Asked of nothing first: a classifier that cannot be had is told before anything is sampled.
    nothing = torch.zeros(1, features.num_features, device=extractor.device)
    classes = extractor.logits(nothing).shape[1]
    found = inception_score(extractor.logits(features.generated), seed=features.seed)
    settings: dict[str, int | str] = {"splits": SPLITS, "classes": classes}
    if extractor.head_sha256:
        settings["head_sha256"] = extractor.head_sha256
    return Measured(found.mean, found.std, n_real=0, settings=settings)


def _require_splits(n: int, splits: int) -> None:
    if splits < 1 or n < 2 * splits:
        raise InputError(
            f"an Inception Score over {splits} splits needs at least {2 * max(splits, 1)} images, "
            f"and there are {n}",
            hint="take more images; papers take 50,000",
            code="input-too-few-images",
            splits=splits,
            count=n,
            needed=2 * max(splits, 1),
        )
