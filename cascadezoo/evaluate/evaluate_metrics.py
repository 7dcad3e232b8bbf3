"""Measure several metrics of one cascade; its images are sampled once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.data.base import ImageData, Split
from cascadezoo.errors import CascadezooError, DataError, StoppedError
from cascadezoo.evaluate.evaluate_sampler import figure_of, sampling_speed
from cascadezoo.evaluate.features.base import FeatureExtractor
from cascadezoo.evaluate.metrics.base import (
    Measured,
    Metric,
    MetricCascade,
    MetricFeatures,
    MetricResults,
    load_metric,
)
from cascadezoo.evaluate.options import EvaluationOptions
from cascadezoo.evaluate.samples import SampleFn, Samples
from cascadezoo.evaluate.shared_features import SharedFeatures, TrackedFeatures
from cascadezoo.model_folder.figures import Figure

__all__ = ["Subject", "evaluate_metrics", "no_images", "sampler"]

Problems = Callable[[str, CascadezooError], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The subject of a measurement.

    Args:
        cascade: the trained cascade, in evaluation mode.
        real: the real images of the requested split, in the cascade's size; :func:`no_images` if
            they are unavailable.
        split: returns the real images of either split; raises if they are unavailable.
        sample: draws the images; None samples them from the cascade with the requested seed.
    """

    cascade: Cascade
    real: ImageData
    split: Callable[[Split], ImageData]
    sample: SampleFn | None = None


class _NoImages(ImageData):
    def __post_init__(self) -> None:
        """Skip the checks, which need at least one image."""


def no_images(shape: tuple[int, int, int], split: Split) -> ImageData:
    """A placeholder for unavailable real images; metrics that need real images are left out.

    Args:
        shape: channels, height and width of the cascade's images.
        split: the requested split.
    """
    return _NoImages(np.empty((0, *shape), np.uint8), None, split)


def evaluate_metrics(
    names: Iterable[str],
    subject: Subject,
    options: EvaluationOptions,
    *,
    extractor: FeatureExtractor,
    on_problem: Problems | None = None,
) -> list[Figure]:
    """Measure a cascade by several metrics.

    Args:
        names: names of registered metrics.
        subject: the cascade and the real images.
        options: how to measure. A figure states the number of images if its metric uses fewer. The
            split is that of the subject's real images.
        extractor: the feature extractor.
        on_problem: called with the name of a metric that cannot be measured and the error; the
            other metrics are still measured. None raises the error.

    Returns:
        The figures in the order of the names, and the sampling speed if images were sampled.

    Raises:
        UnknownNameError: a metric is not registered.
        InputError: the samples differ from the real images in size or channels, or are not finite.
        PluginError: a metric fails or does not return a finite number.
    """
    metrics = {name: load_metric(name) for name in names}
    samples = Samples(
        subject.sample or sampler(subject.cascade, options.seed),
        subject.real.images.shape[1:],
        batch_size=options.batch_size,
        # All metrics on features share one pass over the images.
        keep=any(metric.takes == "cascade" for metric in metrics.values()),
    )
    shared = SharedFeatures(samples, subject.real, extractor, options)
    figures: list[Figure] = []
    for name, metric in metrics.items():
        total = len(subject.real)
        n_real = total if metric.entry.real == "all" else min(options.n, total)
        features = TrackedFeatures(shared, n_real=n_real)
        inputs: MetricFeatures | MetricCascade = features
        if metric.takes == "cascade":
            inputs = MetricCascade(
                cascade=subject.cascade,
                samples=samples,
                real=subject.real,
                split=subject.split,
                n=options.n,
                seed=options.seed,
                batch_size=options.batch_size,
                extractor=extractor,
                precision=options.precision,
                cache=options.cache,
            )
        try:
            if metric.entry.needs_data and not len(subject.real):
                subject.split(subject.real.split)  # raises the reason
                raise DataError(
                    f"metric {name} needs real images, and none are available",
                    code="data-none-for-metric",
                    name=name,
                )
            results = metric(inputs)
        except StoppedError:
            raise
        except CascadezooError as error:
            if samples.failed is not None and error.__cause__ is samples.failed:
                raise samples.failed  # noqa: B904 - the metric is not the cause
            if on_problem is None:
                raise
            on_problem(name, error)
            continue
        seconds, speed = features.seconds(), samples.speed()
        figures += [
            figure_of(
                metric.name,
                measured,
                _compared(subject, measured),
                options,
                extractor=extractor,
                seconds=seconds,
                part=part,
                n_real=n_real if inputs is features else None,
                subset_size=features.subset_size,
                sampling_seconds=options.n / speed if inputs is features and speed else None,
            )
            for part, measured in _with_argument(metric, results).items()
        ]
    return figures + ([sampling_speed(samples)] if samples.drawn else [])


def _compared(subject: Subject, measured: Measured) -> ImageData:
    """The real images of a figure's split; the figure records their digest."""
    if measured.split in (None, subject.real.split):
        return subject.real
    return subject.split(measured.split or subject.real.split)


def _with_argument(metric: Metric, results: MetricResults) -> MetricResults:
    """The results; their settings also record the argument after the colon of the metric's name."""
    field = getattr(type(metric.config), "argument", None)
    if field is None:
        return results
    argument = {field: getattr(metric.config, field)}
    return {
        part: replace(measured, settings={**argument, **measured.settings})
        for part, measured in results.items()
    }


def sampler(cascade: Cascade, seed: int) -> SampleFn:
    """Draws images of a cascade with a seed, with the labels in turn."""

    def sample(first: int, count: int) -> Tensor:
        return cascade.sample(count, first=first, seed=seed, batch_size=count)

    return sample
