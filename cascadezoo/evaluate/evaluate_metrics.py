"""Several metrics of one cascade; its images are drawn once."""

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
    Found,
    Measured,
    Metric,
    MetricCascade,
    MetricFeatures,
    load_metric,
)
from cascadezoo.evaluate.options import EvaluationOptions
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
    options: EvaluationOptions,
    *,
    extractor: FeatureExtractor,
    on_problem: Problems | None = None,
) -> list[Figure]:
    """Measure a cascade by several metrics.

    Args:
        names: of registered metrics.
        subject: the cascade and the real images.
        options: how to measure. Metrics say in their figures where they take fewer images. The
            split is that of the subject's real images.
        extractor: what turns images into features.
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
        subject.sample or _sampler(subject.cascade, options.seed),
        subject.real.images.shape[1:],
        batch_size=options.batch_size,
        # Metrics on features look at them once, together.
        keep=any(metric.takes == "cascade" for metric in metrics.values()),
    )
    shared = SharedFeatures(samples, subject.real, extractor, options)
    figures: list[Figure] = []
    for name, metric in metrics.items():
        total = len(subject.real)
        n_real = total if metric.entry.real == "all" else min(options.n, total)
        asked = AskedFeatures(shared, n_real=n_real)
        given: MetricFeatures | MetricCascade = asked
        if metric.takes == "cascade":
            given = MetricCascade(
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
                options,
                extractor=extractor,
                seconds=seconds,
                part=part,
                n_real=n_real if given is asked else None,
                subset_size=asked.subset_size,
                sampling_seconds=options.n / speed if given is asked and speed else None,
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
