"""Several metrics of one cascade; its images are drawn once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.data.base import ImageData, Split
from cascadezoo.errors import CascadezooError, DataError, StoppedError
from cascadezoo.evaluate.evaluate_sampler import figure_of, sampling_speed
from cascadezoo.evaluate.features.base import FeatureExtractor, Precision
from cascadezoo.evaluate.metrics.base import (
    Found,
    Measured,
    Metric,
    MetricCascade,
    MetricFeatures,
    load_metric,
)
from cascadezoo.evaluate.samples import SampleFn, Samples
from cascadezoo.evaluate.shared_features import AskedFeatures, SharedFeatures
from cascadezoo.model_folder.figures import Figure

__all__ = ["Subject", "evaluate_metrics", "no_images"]

Problems = Callable[[str, CascadezooError], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is measured.

    Args:
        cascade: trained, in evaluation mode.
        real: the real images of the split that is asked for, as the cascade's;
            :func:`no_images` where they are not to be had.
        split: the real images of either split; raises where they are not to be had.
        sample: draws the images; None draws them of the cascade, with the seed of the call.
    """

    cascade: Cascade
    real: ImageData
    split: Callable[[Split], ImageData]
    sample: SampleFn | None = None


class _NoImages(ImageData):
    def __post_init__(self) -> None:
        """Nothing to look at."""


def no_images(shape: tuple[int, int, int], split: Split) -> ImageData:
    """What stands for real images that are not to be had; metrics that need some are left out.

    Args:
        shape: channels, height and width of the cascade's images.
        split: the split that was asked for.
    """
    return _NoImages(np.empty((0, *shape), np.uint8), None, split)


def evaluate_metrics(
    names: Iterable[str],
    subject: Subject,
    *,
    extractor: FeatureExtractor,
    n: int = 10_000,
    seed: int = 0,
    subsets: int = 100,
    subset_size: int = 1000,
    batch_size: int = 64,
    precision: Precision = "fp32",
    cache: Path | None = None,
    on_problem: Problems | None = None,
) -> list[Figure]:
    """Measure a cascade by several metrics.

    Args:
        names: of registered metrics.
        subject: the cascade and the real images.
        extractor: what turns images into features.
        n: how many images are sampled; metrics say in their figures where they take fewer.
        seed: of the images and of what metrics draw.
        subsets: how many subsets are compared by metrics that do that.
        subset_size: how many images are in each.
        batch_size: how many images are sampled at once.
        precision: the extractor's arithmetic.
        cache: see :func:`~cascadezoo.evaluate.evaluate_sampler.evaluate_kid`.
        on_problem: told of a metric that cannot be measured and why, and the others are measured;
            None raises.

    Returns:
        The figures, in the order of the names, and the speed of sampling where images were drawn.

    Raises:
        UnknownNameError: a metric that nothing registers.
        InputError: sizes or channels that differ from the real images, images that are not finite.
        PluginError: a metric fails, or gives what is no finite number.
    """
    metrics = {name: load_metric(name) for name in names}
    samples = Samples(
        subject.sample or _sampler(subject.cascade, seed),
        subject.real.images.shape[1:],
        batch_size=batch_size,
        # Metrics on features look at them once, together.
        keep=any(metric.takes == "cascade" for metric in metrics.values()),
    )
    shared = SharedFeatures(samples, subject.real, extractor, n=n, precision=precision, cache=cache)
    figures: list[Figure] = []
    for name, metric in metrics.items():
        n_real = len(subject.real) if metric.entry.real == "all" else min(n, len(subject.real))
        asked = AskedFeatures(
            shared, n_real=n_real, seed=seed, subsets=subsets, subset_size=subset_size
        )
        given: MetricFeatures | MetricCascade = asked
        if metric.takes == "cascade":
            given = MetricCascade(
                cascade=subject.cascade,
                samples=samples,
                real=subject.real,
                split=subject.split,
                n=n,
                seed=seed,
                batch_size=batch_size,
                extractor=extractor,
                precision=precision,
                cache=cache,
            )
        try:
            if metric.entry.needs_data and not len(subject.real):
                subject.split(subject.real.split)  # tells why there are none
                raise DataError(
                    f"{name} needs real images, and there are none",
                    code="data-none-for-metric",
                    name=name,
                )
            found = metric(given)
        except StoppedError:
            raise
        except CascadezooError as error:
            if samples.failed is not None and error.__cause__ is samples.failed:
                raise samples.failed  # noqa: B904 - no fault of the metric's
            if on_problem is None:
                raise
            on_problem(name, error)
            continue
        seconds, speed = asked.seconds(), samples.speed()
        figures += [
            figure_of(
                metric.name,
                one,
                _compared(subject, one),
                n=n,
                extractor=extractor,
                precision=precision,
                seed=seed,
                seconds=seconds,
                part=part,
                n_real=n_real if given is asked else None,
                subsets=subsets,
                subset_size=subset_size,
                sampling_seconds=n / speed if given is asked and speed else None,
            )
            for part, one in _with_argument(metric, found).items()
        ]
    return figures + ([sampling_speed(samples)] if samples.drawn else [])


def _compared(subject: Subject, found: Measured) -> ImageData:
    """The real images that a figure is of, so that its digest is theirs."""
    asked = found.split in (None, subject.real.split)
    return subject.real if asked else subject.split(found.split or subject.real.split)


def _with_argument(metric: Metric, found: Found) -> Found:
    """What was found, with the setting that the metric's name sets after its colon put down."""
    field = getattr(type(metric.config), "argument", None)
    if field is None:
        return found
    told = {field: getattr(metric.config, field)}
    return {p: replace(one, settings={**told, **one.settings}) for p, one in found.items()}


def _sampler(cascade: Cascade, seed: int) -> SampleFn:
    def sample(first: int, count: int) -> Tensor:
        return cascade.sample(count, first=first, seed=seed, batch_size=count)

    return sample
