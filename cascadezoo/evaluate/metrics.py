"""The contract of a metric, and how those that a spec names are measured together. Light to import.

Images are sampled once, and only their features are kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from cascadezoo.errors import CascadezooError, PluginError
from cascadezoo.plugins import get_registry

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from cascadezoo.data.base import ImageData
    from cascadezoo.evaluate.evaluate import SampleFn
    from cascadezoo.evaluate.features import FeatureExtractor, Precision
    from cascadezoo.evaluate.figures import Figure
    from cascadezoo.registry import Registered

__all__ = ["Measured", "MetricFeatures", "evaluate_metrics", "load_metric"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricFeatures:
    """What a metric compares.

    Args:
        generated: features of sampled images, float32 [N, D].
        real: features of real ones by the same extractor, float32 [M, D], on the same device.
        seed: of whatever the metric draws.
        subsets: how many subsets the spec asks for, of metrics that compare subsets.
        subset_size: how many images shall be in each.
    """

    generated: Tensor
    real: Tensor
    seed: int = 0
    subsets: int = 100
    subset_size: int = 1000


@dataclass(frozen=True, slots=True)
class Measured:
    """What a metric found.

    Args:
        value: the number, in the metric's own unit.
        std: its spread, at least 0; None where it has none.
        unit: as ``dB``; None where it has none.
        by_subsets: the number follows from the subsets that were asked for.
    """

    value: float
    std: float | None = None
    unit: str | None = None
    by_subsets: bool = False


Metric = Callable[[MetricFeatures], Measured]


def load_metric(name: str) -> Metric:
    """The metric that is registered under a name, with its default config.

    Raises:
        LookupFailed: nothing is registered under that name.
        PluginError: what is registered cannot be imported or called.
    """
    found = get_registry().metrics.get(name)
    try:
        config = found.entry.load_config()()
    except ValidationError as error:
        raise PluginError(
            f"{found.entry.config} of the metric {name!r} ({found.origin}) has no defaults"
        ) from error
    measure = found.entry.load()
    if not callable(measure):
        raise PluginError(f"{found.entry.impl} of the metric {name!r} cannot be called")

    def checked(features: MetricFeatures) -> Measured:
        try:
            value = measure(config, features)
        except CascadezooError:
            raise
        except Exception as error:
            raise PluginError(
                f"metric {name!r} ({found.origin}) failed: {type(error).__name__}: {error}",
                hint='leave it out: --set evaluation.metrics=["kid"]',
            ) from error
        return _checked(value, found)

    return checked


def evaluate_metrics(
    names: Iterable[str],
    sample_fn: SampleFn,
    real: ImageData,
    *,
    extractor: FeatureExtractor,
    n: int = 10_000,
    seed: int = 0,
    subsets: int = 100,
    subset_size: int = 1000,
    batch_size: int = 64,
    precision: Precision = "fp32",
    cache: Path | None = None,
) -> list[Figure]:
    """Measure sampled images against real ones by several metrics; images are sampled once.

    Args:
        names: of registered metrics.
        sample_fn: draws the images; ``seed`` must be the seed that it draws them from.
        real: the images to compare with, at the size that is sampled; at most ``n`` are taken.
        extractor: what turns images into features.
        n: how many images are sampled.
        seed: of what metrics draw, and put down as the seed of the images.
        subsets: how many subsets are compared by metrics that do that.
        subset_size: how many images are in each.
        batch_size: how many images are sampled at once.
        precision: the extractor's arithmetic.
        cache: see :func:`~cascadezoo.evaluate.evaluate.evaluate_kid`.

    Returns:
        A figure for each name; their names are ``METRIC.EXTRACTOR.nN``.

    Raises:
        InputError: sizes or channels that differ from the real images, images that are not finite.
        PluginError: a metric fails, or gives what is no finite number.
    """
    import time

    from cascadezoo.evaluate.evaluate import figure_of, sample_features
    from cascadezoo.evaluate.real import real_features

    metrics = {name: load_metric(name) for name in names}
    sampled = sample_features(
        sample_fn, real, extractor=extractor, n=n, batch_size=batch_size, precision=precision
    )
    began = time.perf_counter()
    n_real = min(n, len(real))
    features = MetricFeatures(
        generated=sampled.features,
        real=real_features(real, extractor, count=n_real, precision=precision, cache=cache),
        seed=seed,
        subsets=subsets,
        subset_size=subset_size,
    )
    shared = sampled.seconds + time.perf_counter() - began
    figures = []
    for name, measure in metrics.items():
        began = time.perf_counter()
        found = measure(features)
        figures.append(
            figure_of(
                name,
                found.value,
                sampled,
                real,
                extractor=extractor,
                std=found.std,
                unit=found.unit,
                precision=precision,
                n_real=n_real,
                subsets=subsets if found.by_subsets else None,
                subset_size=subset_size if found.by_subsets else None,
                seed=seed,
                seconds=shared + time.perf_counter() - began,
            )
        )
    return figures


def _checked(value: Any, found: Registered[Any]) -> Measured:
    measured = value if isinstance(value, Measured) else None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        measured = Measured(float(value))
    if measured is None:
        raise PluginError(
            f"metric {found.entry.name!r} ({found.origin}) gave a {type(value).__name__}, not a "
            "number or a cascadezoo.Measured"
        )
    numbers = [measured.value, *([] if measured.std is None else [measured.std])]
    if not all(math.isfinite(number) for number in numbers) or (measured.std or 0.0) < 0:
        raise PluginError(
            f"metric {found.entry.name!r} ({found.origin}) gave {measured.value} +- {measured.std}",
            hint="a metric gives a finite number, and a spread of at least 0 where it has one",
        )
    return measured
