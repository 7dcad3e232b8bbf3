"""Measure a sampler: draw images in batches, take their features, compare with real ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cascadezoo.data.base import ImageData
from cascadezoo.errors import InputError
from cascadezoo.evaluate.features import FeatureExtractor, Precision
from cascadezoo.evaluate.figures import Figure, figure_name
from cascadezoo.evaluate.kid import SUBSETS, kernel_inception_distance, usual_subset_size
from cascadezoo.evaluate.real import real_features

__all__ = [
    "SampleFn",
    "SampledFeatures",
    "evaluate_kid",
    "evaluate_kid_quickly",
    "figure_of",
    "measure_sampling",
    "require_enough",
    "sample_features",
    "sampling_speed",
]

SampleFn = Callable[[int, int], Tensor]
"""``sample(first, count)`` draws images ``first`` to ``first + count - 1`` of one seed:
floating [count, C, H, W] in [-1, 1], the same images whatever the batches."""


def evaluate_kid(
    sample_fn: SampleFn,
    real: ImageData,
    *,
    extractor: FeatureExtractor,
    n: int = 10_000,
    seed: int = 0,
    n_real: int | None = None,
    subsets: int = SUBSETS,
    subset_size: int | None = None,
    batch_size: int = 64,
    precision: Precision = "fp32",
    cache: Path | None = None,
    note: str | None = None,
) -> Figure:
    """KID of sampled images against real ones. Features are streamed, images are not kept.

    Args:
        sample_fn: draws the images; ``seed`` must be the seed that it draws them from.
        real: the images to compare with, at the size that is sampled.
        extractor: what turns images into features.
        n: how many images are sampled.
        seed: of the subsets, and put down as the seed of the images.
        n_real: how many real images are compared with; None takes ``n``, or all where there
            are fewer.
        subsets: how many pairs of subsets are compared.
        subset_size: how many images are in a subset; None takes what
            :func:`~cascadezoo.evaluate.kid.usual_subset_size` gives.
        batch_size: how many images are sampled at once.
        precision: the extractor's arithmetic.
        cache: where features of real images are kept, see
            :func:`~cascadezoo.evaluate.real.real_features`.
        note: what a reader must know beside the number.

    Returns:
        The figure; its name is ``kid.EXTRACTOR.nN``.

    Raises:
        InputError: too few images for the subsets, sizes or channels that differ from the real
            images, images that are not finite.
    """
    n_real = min(n, len(real)) if n_real is None else n_real
    if subset_size is None:
        subset_size = usual_subset_size(n, n_real)
    require_enough(n, n_real, subset_size)
    sampled = sample_features(
        sample_fn, real, extractor=extractor, n=n, batch_size=batch_size, precision=precision
    )
    start = time.perf_counter()
    known = real_features(real, extractor, count=n_real, precision=precision, cache=cache)
    found = kernel_inception_distance(
        sampled.features, known, subsets=subsets, subset_size=subset_size, seed=seed
    )
    return figure_of(
        "kid",
        found.mean,
        sampled,
        real,
        extractor=extractor,
        std=found.std,
        precision=precision,
        n_real=n_real,
        subsets=subsets,
        subset_size=subset_size,
        seed=seed,
        seconds=sampled.seconds + time.perf_counter() - start,
        note=note,
    )


@dataclass(frozen=True, slots=True)
class SampledFeatures:
    """Features of sampled images, float32 [N, D], and how long it took to get them.

    Args:
        features: on the extractor's device.
        seconds: of the extractor.
        sampling_seconds: of the sampler.
    """

    features: Tensor
    seconds: float
    sampling_seconds: float


def sample_features(
    sample_fn: SampleFn,
    real: ImageData,
    *,
    extractor: FeatureExtractor,
    n: int,
    batch_size: int = 64,
    precision: Precision = "fp32",
) -> SampledFeatures:
    """Draw images and keep their features alone; see :func:`evaluate_kid`."""
    rows: list[Tensor] = []
    sampling = measuring = 0.0
    for images, seconds in _batches(sample_fn, n, batch_size):
        sampling += seconds
        start = time.perf_counter()
        _compare_shapes(images, real)
        rows.append(extractor(images, precision=precision))
        measuring += time.perf_counter() - start
    return SampledFeatures(torch.cat(rows), measuring, sampling)


def figure_of(
    metric: str,
    value: float,
    sampled: SampledFeatures,
    real: ImageData,
    *,
    extractor: FeatureExtractor,
    precision: Precision,
    n_real: int,
    seed: int,
    seconds: float,
    std: float | None = None,
    unit: str | None = None,
    subsets: int | None = None,
    subset_size: int | None = None,
    note: str | None = None,
) -> Figure:
    """A number with how it was got; see :class:`~cascadezoo.evaluate.figures.Figure`."""
    n = len(sampled.features)
    return Figure(
        name=figure_name(metric, n, extractor.name, precision),
        metric=metric,
        value=value,
        std=std,
        unit=unit,
        n=n,
        extractor=extractor.name,
        extractor_version=extractor.version,
        extractor_sha256=extractor.sha256,
        precision=precision,
        n_real=n_real,
        subsets=subsets,
        subset_size=subset_size,
        seed=seed,
        split=real.split,
        data_digest=real.digest,
        resolution=real.images.shape[-1],
        seconds=round(seconds, 3),
        sampling_seconds=round(sampled.sampling_seconds, 3),
        device=extractor.device.type,
        note=note,
    )


def evaluate_kid_quickly(
    sample_fn: SampleFn,
    real: ImageData,
    *,
    extractor: FeatureExtractor,
    n: int = 1000,
    seed: int = 0,
    batch_size: int = 64,
    cache: Path | None = None,
) -> Figure:
    """KID for use while training: few images, small subsets, up to 5,000 real images.

    With the extractor ``small`` it costs a second or two beyond sampling on two CPU cores.
    Arguments and errors are those of :func:`evaluate_kid`.
    """
    return evaluate_kid(
        sample_fn,
        real,
        extractor=extractor,
        n=n,
        seed=seed,
        n_real=min(len(real), 5 * n, 5000),
        subsets=50,
        subset_size=min(500, usual_subset_size(n, len(real))),
        batch_size=batch_size,
        cache=cache,
        note="measured while training",
    )


def require_enough(n: int, n_real: int, subset_size: int) -> None:
    """Refuse a KID that :func:`evaluate_kid` could not measure; to be asked before training.

    Args:
        n: how many images will be sampled.
        n_real: how many real ones there are to compare with.
        subset_size: how many of each are in a subset.

    Raises:
        InputError: a subset is larger than what there is to choose from.
    """
    if min(n, n_real) < subset_size:
        raise InputError(
            f"KID with subsets of {subset_size} cannot be measured on {n} generated and "
            f"{n_real} real images",
            hint=f'set "evaluation.samples" to at least {subset_size}'
            if n < subset_size
            else f'set "evaluation.subset_size" to at most {n_real}',
        )


def measure_sampling(sample_fn: SampleFn, *, n: int = 64, batch_size: int = 64) -> Figure:
    """How fast images are sampled, in images per second.

    Args:
        sample_fn: draws the images.
        n: how many are timed; one batch goes before them untimed.
        batch_size: how many are sampled at once.
    """
    sample_fn(0, min(batch_size, n))
    seconds, device = 0.0, "cpu"
    for images, took in _batches(sample_fn, n, batch_size):
        seconds += took
        device = images.device.type
    return Figure(
        name=figure_name("images-per-second", n),
        metric="images-per-second",
        value=n / max(seconds, 1e-9),
        n=n,
        unit="images/s",
        sampling_seconds=round(seconds, 3),
        device=device,
        note=f"batches of {batch_size}",
    )


def sampling_speed(measured: Figure, batch_size: int) -> Figure:
    """How fast the images of another figure were sampled, in images per second.

    Args:
        measured: a figure that knows its ``sampling_seconds``.
        batch_size: how many were sampled at once.

    Raises:
        ValueError: the figure does not know it.
    """
    if not measured.sampling_seconds:
        raise ValueError(f"{measured.name} does not know how long sampling took")
    return Figure(
        name=figure_name("images-per-second", measured.n),
        metric="images-per-second",
        value=measured.n / measured.sampling_seconds,
        n=measured.n,
        unit="images/s",
        sampling_seconds=measured.sampling_seconds,
        device=measured.device,
        note=f"batches of {batch_size}",
    )


def _batches(sample_fn: SampleFn, n: int, batch_size: int) -> Iterator[tuple[Tensor, float]]:
    """Batches of ``n`` images in all, with the seconds that sampling each took."""
    if n < 1 or batch_size < 1:
        raise InputError(
            f"{n} images in batches of {batch_size} cannot be sampled",
            hint="both must be at least 1",
        )
    for first in range(0, n, batch_size):
        count = min(batch_size, n - first)
        start = time.perf_counter()
        images = sample_fn(first, count)
        if images.device.type == "cuda":
            torch.cuda.synchronize(images.device)
        seconds = time.perf_counter() - start
        if len(images) != count:
            raise InputError(
                f"the sampler gave {len(images)} images where {count} were asked for",
                hint="sample_fn(first, count) must return [count, C, H, W]",
            )
        yield images, seconds


def _compare_shapes(images: Tensor, real: ImageData) -> None:
    if images.shape[1:] != real.images.shape[1:]:
        sizes = [
            "x".join(str(size) for size in shape[1:]) for shape in (images.shape, real.images.shape)
        ]
        raise InputError(
            f"generated images are {sizes[0]} and real ones {sizes[1]} (channels, height, width)",
            hint="measure against the data at the cascade's own size and channels",
        )
