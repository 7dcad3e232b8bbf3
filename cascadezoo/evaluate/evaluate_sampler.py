"""Measure a sampler: draw images in batches, take their features, compare with real ones."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from cascadezoo.data.base import ImageData
from cascadezoo.evaluate.features.base import FeatureExtractor, Precision
from cascadezoo.evaluate.metrics.base import Measured
from cascadezoo.evaluate.metrics.kid import kernel_inception_distance, require_enough
from cascadezoo.evaluate.options import EvaluationOptions
from cascadezoo.evaluate.real_features import real_features
from cascadezoo.evaluate.samples import SampleFn, Samples
from cascadezoo.model_folder.figures import Figure, figure_name

__all__ = [
    "SampleFn",
    "SampledFeatures",
    "evaluate_kid",
    "figure_of",
    "measure_sampling",
    "require_enough",
    "sample_features",
    "sampling_speed",
]


def evaluate_kid(
    sample_fn: SampleFn,
    real: ImageData,
    options: EvaluationOptions,
    *,
    extractor: FeatureExtractor,
    n_real: int | None = None,
    note: str | None = None,
) -> Figure:
    """KID of sampled images against real ones. Features are streamed, images are not kept.

    Args:
        sample_fn: draws the images; the seed of ``options`` must be the seed that it draws them
            from.
        real: the images to compare with, at the size that is sampled.
        options: how to measure. The split is that of ``real``.
        extractor: what turns images into features.
        n_real: how many real images are compared with; None takes ``options.n``, or all where
            there are fewer.
        note: what a reader must know beside the number.

    Returns:
        The figure; its name is ``kid.EXTRACTOR.nN``.

    Raises:
        InputError: too few images for the subsets, sizes or channels that differ from the real
            images, images that are not finite.
    """
    n_real = min(options.n, len(real)) if n_real is None else n_real
    subset_size = options.subset_size_for(options.n, n_real)
    require_enough(options.n, n_real, subset_size)
    samples = Samples(sample_fn, real.images.shape[1:], batch_size=options.batch_size)
    sampled = sample_features(samples, extractor, options.n, precision=options.precision)
    start = time.perf_counter()
    known = real_features(
        real, extractor, count=n_real, precision=options.precision, cache=options.cache
    )
    found = kernel_inception_distance(
        sampled.features,
        known,
        subsets=options.subsets,
        subset_size=subset_size,
        seed=options.seed,
    )
    return figure_of(
        "kid",
        Measured(found.mean, found.std, by_subsets=True, note=note),
        real,
        options,
        extractor=extractor,
        n_real=n_real,
        subset_size=subset_size,
        seconds=sampled.seconds + time.perf_counter() - start,
        sampling_seconds=samples.seconds,
    )


@dataclass(frozen=True, slots=True)
class SampledFeatures:
    """Features of sampled images, float32 [N, D] on the extractor's device.

    Args:
        features: one row an image.
        seconds: how long the extractor took.
    """

    features: Tensor
    seconds: float


def sample_features(
    samples: Samples, extractor: FeatureExtractor, n: int, *, precision: Precision = "fp32"
) -> SampledFeatures:
    """Features of the first ``n`` images; see :func:`evaluate_kid`."""
    features = torch.empty(n, extractor.num_features, device=extractor.device)
    first, seconds = 0, 0.0
    for images in samples.batches(n):
        start = time.perf_counter()
        features[first : first + len(images)] = extractor(images, precision=precision)
        if extractor.device.type == "cuda":
            torch.cuda.synchronize(extractor.device)
        seconds += time.perf_counter() - start
        first += len(images)
    return SampledFeatures(features, seconds)


def figure_of(
    metric: str,
    found: Measured,
    real: ImageData,
    options: EvaluationOptions,
    *,
    extractor: FeatureExtractor,
    seconds: float,
    part: str = "",
    n_real: int | None = None,
    subset_size: int | None = None,
    sampling_seconds: float | None = None,
) -> Figure:
    """A number with how it was got; see :class:`~cascadezoo.model_folder.figures.Figure`.

    Args:
        metric: the metric's name.
        found: what it found; what this says goes before what follows.
        real: the real images.
        options: how it was measured.
        extractor: the one of ``options``, loaded.
        seconds: how long measuring took.
        part: of the metric, which follows the figure's name.
        n_real: how many real images the metric was given; 0 where it compares with none.
        subset_size: how many images were in each subset; put down with the number of subsets
            where the value follows from them.
        sampling_seconds: how long drawing the images took.
    """
    own = found.extractor is not None
    n_real = n_real if found.n_real is None else found.n_real
    split = None if n_real == 0 else found.split or real.split
    n = options.n if found.n is None else found.n
    named = (found.extractor or None) if own else extractor.name
    used = None if named is None or own else options.precision
    parts = [p for p in (part, "" if split == "train" else split) if p]
    data = real.digest if split == real.split else None
    return Figure(
        name=".".join([figure_name(metric, n, named, used), *parts]),
        metric=metric,
        value=found.value,
        std=found.std,
        tolerance=found.std if found.tolerance is None else found.tolerance,
        unit=found.unit,
        n=n,
        extractor=named,
        extractor_version=found.extractor_version if own else extractor.version,
        extractor_sha256=found.extractor_sha256 if own else extractor.sha256,
        precision=used,
        n_real=n_real or None,
        subsets=options.subsets if found.by_subsets else None,
        subset_size=subset_size if found.by_subsets else None,
        seed=options.seed,
        split=split,
        data_digest=data,
        resolution=real.images.shape[-1],
        seconds=round(seconds, 3),
        sampling_seconds=None if sampling_seconds is None else round(sampling_seconds, 3),
        device=extractor.device.type,
        note=found.note,
        settings=dict(found.settings) or None,
    )


def measure_sampling(sample_fn: SampleFn, *, n: int = 64, batch_size: int = 64) -> Figure:
    """How fast images are sampled, in images per second.

    Args:
        sample_fn: draws the images.
        n: how many are timed; one batch goes before them untimed.
        batch_size: how many are sampled at once.
    """
    shape = tuple(sample_fn(0, min(batch_size, n)).shape[1:])
    samples = Samples(sample_fn, (shape[0], shape[1], shape[2]), batch_size=batch_size)
    for _ in samples.batches(n):
        pass
    return sampling_speed(samples)


def sampling_speed(samples: Samples) -> Figure:
    """How fast images were drawn so far, in images per second.

    Raises:
        ValueError: none were drawn.
    """
    speed = samples.speed()
    if speed is None:
        raise ValueError("no images were drawn, so nobody knows how fast")
    return Figure(
        name=figure_name("images-per-second", samples.drawn),
        metric="images-per-second",
        value=speed,
        n=samples.drawn,
        unit="images/s",
        sampling_seconds=round(samples.seconds, 3),
        device=samples.device.type,
        note=f"batches of {samples.batch_size}",
    )
