"""Measure a sampler: draw images in batches and compare their features with real images."""

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
    """Measure the KID of sampled and real images. Images are not kept in memory.

    Args:
        sample_fn: draws the images; it must use the seed of ``options``.
        real: the images to compare with, in the size of the samples.
        options: how to measure. The split is that of ``real``.
        extractor: the feature extractor.
        n_real: number of real images; None uses ``options.n``, or all if there are fewer.
        note: what a reader must know besides the number.

    Returns:
        The figure; its name is ``kid.EXTRACTOR.nN``.

    Raises:
        InputError: there are too few images for the subsets, or the samples differ from the real
            images in size or channels, or are not finite.
    """
    n_real = min(options.n, len(real)) if n_real is None else n_real
    subset_size = options.subset_size_for(options.n, n_real)
    require_enough(options.n, n_real, subset_size)
    samples = Samples(sample_fn, real.images.shape[1:], batch_size=options.batch_size)
    sampled = sample_features(samples, extractor, options.n, precision=options.precision)
    start = time.perf_counter()
    features = real_features(
        real, extractor, count=n_real, precision=options.precision, cache=options.cache
    )
    kid = kernel_inception_distance(
        sampled.features,
        features,
        subsets=options.subsets,
        subset_size=subset_size,
        seed=options.seed,
    )
    return figure_of(
        "kid",
        Measured(kid.mean, kid.std, by_subsets=True, note=note),
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
        features: one row per image.
        seconds: duration of the extraction.
    """

    features: Tensor
    seconds: float


def sample_features(
    samples: Samples, extractor: FeatureExtractor, n: int, *, precision: Precision = "fp32"
) -> SampledFeatures:
    """Extract the features of the first ``n`` samples."""
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
    measured: Measured,
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
    """Make the figure of a result: the value with the record of its measurement.

    Args:
        metric: the metric's name.
        measured: the result; its fields override those below.
        real: the real images.
        options: the options of the measurement.
        extractor: the loaded extractor of ``options``.
        seconds: duration of the measurement.
        part: the part of the metric, a suffix of the figure's name.
        n_real: number of real images; 0 for none.
        subset_size: number of images in each subset; recorded if the value depends on subsets.
        sampling_seconds: duration of the sampling.
    """
    own = measured.extractor is not None
    n_real = n_real if measured.n_real is None else measured.n_real
    split = None if n_real == 0 else measured.split or real.split
    n = options.n if measured.n is None else measured.n
    named = (measured.extractor or None) if own else extractor.name
    used = None if named is None or own else options.precision
    parts = [p for p in (part, "" if split == "train" else split) if p]
    data = real.digest if split == real.split else None
    return Figure(
        name=".".join([figure_name(metric, n, named, used), *parts]),
        metric=metric,
        value=measured.value,
        std=measured.std,
        tolerance=measured.std if measured.tolerance is None else measured.tolerance,
        unit=measured.unit,
        n=n,
        extractor=named,
        extractor_version=measured.extractor_version if own else extractor.version,
        extractor_sha256=measured.extractor_sha256 if own else extractor.sha256,
        precision=used,
        n_real=n_real or None,
        subsets=options.subsets if measured.by_subsets else None,
        subset_size=subset_size if measured.by_subsets else None,
        seed=options.seed,
        split=split,
        data_digest=data,
        resolution=real.images.shape[-1],
        seconds=round(seconds, 3),
        sampling_seconds=None if sampling_seconds is None else round(sampling_seconds, 3),
        device=extractor.device.type,
        note=measured.note,
        settings=dict(measured.settings) or None,
    )


def measure_sampling(sample_fn: SampleFn, *, n: int = 64, batch_size: int = 64) -> Figure:
    """Measure the sampling speed in images per second.

    Args:
        sample_fn: draws the images.
        n: number of timed images, after one batch that is not timed.
        batch_size: number of images per batch.
    """
    shape = tuple(sample_fn(0, min(batch_size, n)).shape[1:])
    samples = Samples(sample_fn, (shape[0], shape[1], shape[2]), batch_size=batch_size)
    for _ in samples.batches(n):
        pass
    return sampling_speed(samples)


def sampling_speed(samples: Samples) -> Figure:
    """The sampling speed of the images drawn so far, in images per second.

    Raises:
        ValueError: no images were drawn.
    """
    speed = samples.speed()
    if speed is None:
        raise ValueError("no images were drawn, so the sampling speed is unknown")
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
