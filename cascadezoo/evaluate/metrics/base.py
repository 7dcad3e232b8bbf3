"""The contract of a metric: its input and output. Light to import.

A metric takes features (a distance between two sets of vectors) or a cascade (if it needs images,
stages or labels). Its entry defines which.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from cascadezoo.errors import CascadezooError, PluginError
from cascadezoo.plugins.manager import get_registry
from cascadezoo.plugins.tracebacks import blame, own_definition
from cascadezoo.spec.lookup import look_up
from cascadezoo.util.limits import is_out_of_memory

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from cascadezoo.cascade.cascade import Cascade
    from cascadezoo.data.base import ImageData, Split
    from cascadezoo.evaluate.features.base import FeatureExtractor, Precision
    from cascadezoo.evaluate.features.moments import Statistics
    from cascadezoo.evaluate.samples import Samples
    from cascadezoo.plugins.registry import MetricEntry

__all__ = [
    "REDRAWN",
    "Measured",
    "Metric",
    "MetricCascade",
    "MetricFeatures",
    "MetricResults",
    "load_metric",
]

REDRAWN = 8**0.5
"""Two figures of independent draws differ by less than this factor times the standard error of
one of them, 19 times out of 20."""


class MetricFeatures:
    """The input of a metric on features.

    Features may be computed lazily, on first access. Check the numbers ``n``, ``n_real`` and
    ``num_features`` first, so that an impossible measurement is refused before sampling.

    Args:
        generated: features of sampled images, float32 [N, D].
        real: features of real images by the same extractor, float32 [M, D], on the same device.
        seed: seed of the metric's random choices.
        subsets: number of subsets, for metrics that compare subsets.
        subset_size: number of images in each subset.
        extractor: the extractor of the features; None if it is unknown.
    """

    def __init__(
        self,
        *,
        generated: Tensor,
        real: Tensor,
        seed: int = 0,
        subsets: int = 100,
        subset_size: int = 1000,
        extractor: FeatureExtractor | None = None,
    ) -> None:
        self._generated = generated
        self._real = real
        self.seed = seed
        self.subsets = subsets
        self.subset_size = subset_size
        self.extractor = extractor

    @property
    def generated(self) -> Tensor:
        """Features of sampled images, float32 [n, D]."""
        return self._generated

    @property
    def real(self) -> Tensor:
        """Features of real images, float32 [n_real, D], all in memory."""
        return self._real

    @property
    def n(self) -> int:
        """Number of generated images."""
        return len(self._generated)

    @property
    def n_real(self) -> int:
        """Number of real images."""
        return len(self._real)

    @property
    def num_features(self) -> int:
        """The length D of a feature vector."""
        return self._generated.shape[1]

    def real_statistics(self) -> Statistics:
        """Mean and covariance of the features of all ``n_real`` images, which are streamed."""
        from cascadezoo.evaluate.features.moments import Statistics

        return Statistics.of(self._real)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricCascade:
    """The input of a metric on a cascade.

    Args:
        cascade: the trained cascade, in evaluation mode.
        samples: its images; each is drawn once and shared by all metrics.
        real: the real images of the requested split, in the cascade's size: uint8 in memory.
        split: returns the real images of either split; raises DataError if they are unavailable.
        n: number of images to use, generated or real. If fewer exist, the metric reports it.
        seed: seed of the metric's random choices and of the samples.
        batch_size: number of images per batch.
        extractor: the requested extractor.
        precision: its precision.
        cache: folder for features of real images and classifiers; None uses the default folder.
    """

    cascade: Cascade
    samples: Samples
    real: ImageData
    split: Callable[[Split], ImageData]
    n: int
    seed: int
    batch_size: int
    extractor: FeatureExtractor
    precision: Precision = "fp32"
    cache: Path | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """The result of a metric.

    Args:
        value: the number, in the metric's own unit.
        std: its spread, at least 0; None if it has none.
        unit: for example ``dB``; None if it has none.
        by_subsets: whether the number depends on the requested subsets.
        tolerance: the accepted difference of a measurement of the same images on another machine;
            None uses ``std``.
        n: number of images; None means the requested number.
        n_real: number of real images; None means the given number. 0 means that the metric uses
            no real images, so the figure names no data.
        extractor: the network, if it is not the requested extractor, for example ``vgg``; "" for
            no network.
        extractor_version: the version of that network.
        extractor_sha256: the digest of that network's weights.
        split: the split of the real images; None means the requested split.
        note: what a reader must know besides the number.
        settings: everything else that the number depends on, by name: numbers, strings and
            booleans.
    """

    value: float
    std: float | None = None
    unit: str | None = None
    by_subsets: bool = False
    tolerance: float | None = None
    n: int | None = None
    n_real: int | None = None
    extractor: str | None = None
    extractor_version: str | None = None
    extractor_sha256: str | None = None
    split: Split | None = None
    note: str | None = None
    settings: Mapping[str, float | int | str | bool] = field(default_factory=dict)


MetricResults = Mapping[str, Measured]
"""The results of a metric, by the suffix of the figure's name; "" is the metric itself."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A registered metric with its config; see :func:`load_metric`."""

    name: str
    entry: MetricEntry
    origin: str
    config: Any
    measure: Callable[[Any, Any], Any]

    @property
    def takes(self) -> Literal["features", "cascade"]:
        """The kind of input: :class:`MetricFeatures` or :class:`MetricCascade`."""
        return self.entry.takes

    def prepare(self, extractor: FeatureExtractor, size: int) -> None:
        """Load what the measurement needs, before anything is trained.

        Args:
            extractor: the loaded feature extractor.
            size: height and width of the cascade's images in pixels.

        Raises:
            CascadezooError: something is unavailable.
            PluginError: the preparation that the config names cannot be imported.
        """
        target = getattr(self.config, "preparation", None)
        if target is None:
            return
        module, _, function = str(target).partition(":")
        try:
            prepare = getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError, ValueError) as error:
            raise PluginError(
                f"the preparation of metric {self.name!r} ({self.origin}) cannot be imported from "
                f"{target}: {error}",
                code="plugin-preparation-missing",
                name=self.name,
            ) from error
        prepare(self.config, extractor, size)

    def __call__(self, inputs: MetricFeatures | MetricCascade) -> MetricResults:
        """Measure.

        Raises:
            CascadezooError: the metric refuses the input.
            PluginError: the metric fails otherwise, or does not return a finite number.
        """
        try:
            value = self.measure(self.config, inputs)
        except CascadezooError:
            raise
        except (Exception, SystemExit) as error:
            if is_out_of_memory(error):
                raise
            package = self.entry.impl.partition(":")[0].partition(".")[0]
            place = blame(error, package, own_only=True) or own_definition(self.measure)
            raise PluginError(
                f"metric {self.name!r} ({self.origin}) failed: {type(error).__name__}: {error}"
                f"{f' [{place}]' if place else ''}",
                hint='leave it out: --set evaluation.metrics=["kid"]',
                code="plugin-metric-failed",
                name=self.name,
                where=place,
            ) from error
        parts = value if isinstance(value, Mapping) else {"": value}
        return {str(part): self._checked(result) for part, result in parts.items()}

    def _checked(self, value: Any) -> Measured:
        measured = value if isinstance(value, Measured) else None
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            measured = Measured(float(value))
        if measured is None:
            raise PluginError(
                f"metric {self.name!r} ({self.origin}) returned a {type(value).__name__}, not "
                "a number or a cascadezoo.Measured",
                code="plugin-metric-result-type",
                name=self.name,
            )
        spreads = [s for s in (measured.std, measured.tolerance) if s is not None]
        finite = all(math.isfinite(number) for number in (measured.value, *spreads))
        if not finite or min(spreads, default=0.0) < 0:
            raise PluginError(
                f"metric {self.name!r} ({self.origin}) returned {measured.value} +- {measured.std}",
                hint="a metric must return a finite number; its spread, if any, must be finite and "
                "at least 0",
                code="plugin-metric-result-value",
                name=self.name,
            )
        return measured


def load_metric(name: str) -> Metric:
    """Load a registered metric.

    Args:
        name: the metric's name, with its argument if it takes one: ``kid``, ``lpips:alex``.

    Raises:
        UnknownNameError: the metric is not registered.
        InputError: the metric does not accept the argument.
        PluginError: the implementation cannot be imported or is not callable.
    """
    row, config = look_up(get_registry().metrics, name)
    measure = row.entry.load()
    if not callable(measure):
        raise PluginError(
            f"{row.entry.impl} of metric {name!r} is not callable",
            code="plugin-metric-not-callable",
            name=name,
        )
    return Metric(row.entry.name, row.entry, str(row.origin), config, measure)
