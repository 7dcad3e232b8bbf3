"""The contract of a metric: what it is given and what it gives. Light to import.

A metric takes features (a distance between two sets of vectors) or a cascade (whatever needs its
images, its stages or its labels); its entry says which.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from cascadezoo.errors import CascadezooError, PluginError
from cascadezoo.plugins.manager import get_registry
from cascadezoo.spec.lookup import look_up

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
    "Found",
    "Measured",
    "Metric",
    "MetricCascade",
    "MetricFeatures",
    "load_metric",
]

REDRAWN = 8**0.5
"""Two figures of other draws differ by less than this times the standard error of one of them,
nineteen times in twenty."""


class MetricFeatures:
    """What a metric on features compares.

    A metric may be given features that are made when it first asks for them: it looks at the
    numbers ``n``, ``n_real`` and ``num_features`` first, so that what cannot be measured is
    refused before anything is sampled.

    Args:
        generated: features of sampled images, float32 [N, D].
        real: features of real ones by the same extractor, float32 [M, D], on the same device.
        seed: of whatever the metric draws.
        subsets: how many subsets the spec asks for, of metrics that compare subsets.
        subset_size: how many images shall be in each.
        extractor: what made the features; None where they came without.
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
        """Features of real images, float32 [n_real, D]; all of them are held in memory."""
        return self._real

    @property
    def n(self) -> int:
        """How many generated images there are."""
        return len(self._generated)

    @property
    def n_real(self) -> int:
        """How many real images there are."""
        return len(self._real)

    @property
    def num_features(self) -> int:
        """The length D of a feature vector."""
        return self._generated.shape[1]

    def real_statistics(self) -> Statistics:
        """Mean and covariance of the features of all ``n_real`` images; these are streamed."""
        from cascadezoo.evaluate.features.moments import Statistics

        return Statistics.of(self._real)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricCascade:
    """What a metric on a cascade is given.

    Args:
        cascade: the trained cascade, in evaluation mode.
        samples: its images, each drawn once however many metrics look at them.
        real: the real images of the split that is asked for, as the cascade's: uint8 in memory.
        split: the real images of either split; raises DataError where they are not to be had.
        n: how many images, generated or real, the metric shall look at; it says so where there
            are fewer.
        seed: of whatever the metric draws; the samples are drawn from it, too.
        batch_size: how many images at a time.
        extractor: the extractor that is asked for.
        precision: its arithmetic.
        cache: where features of real images and classifiers are kept; None is the usual folder.
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
    """What a metric found.

    Args:
        value: the number, in the metric's own unit.
        std: its spread, at least 0; None where it has none.
        unit: as ``dB``; None where it has none.
        by_subsets: the number follows from the subsets that were asked for.
        tolerance: by how much another measurement of the same images on another machine may
            differ; None takes ``std``.
        n: how many images it is of; None are as many as were asked for.
        n_real: how many real images it is of; None are as many as the metric was given, and 0
            says that it compares with none, so that the figure names no data.
        extractor: the network that it is measured with where that is not the extractor that was
            asked for, as ``vgg``; "" for none at all.
        extractor_version: of that network.
        extractor_sha256: the digest of that network's weights.
        split: the split of the real images; None is the one that was asked for.
        note: what a reader must know beside the number.
        settings: what else the number follows from, by name: numbers, texts and truth values.
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


Found = Mapping[str, Measured]
"""What a metric found, by the part that follows the figure's name; "" is the metric itself."""


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
        """What it is given: :class:`MetricFeatures` or :class:`MetricCascade`."""
        return self.entry.takes

    def __call__(self, given: MetricFeatures | MetricCascade) -> Found:
        """Measure.

        Raises:
            CascadezooError: the metric says that it cannot be measured.
            PluginError: it fails otherwise, or gives what is no finite number.
        """
        try:
            value = self.measure(self.config, given)
        except CascadezooError:
            raise
        except Exception as error:
            raise PluginError(
                f"metric {self.name!r} ({self.origin}) failed: {type(error).__name__}: {error}",
                hint='leave it out: --set evaluation.metrics=["kid"]',
                code="plugin-metric-failed",
                name=self.name,
            ) from error
        parts = value if isinstance(value, Mapping) else {"": value}
        return {str(part): self._checked(one) for part, one in parts.items()}

    def _checked(self, value: Any) -> Measured:
        measured = value if isinstance(value, Measured) else None
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            measured = Measured(float(value))
        if measured is None:
            raise PluginError(
                f"metric {self.name!r} ({self.origin}) gave a {type(value).__name__}, not a "
                "number or a cascadezoo.Measured",
                code="plugin-metric-result-type",
                name=self.name,
            )
        spreads = [s for s in (measured.std, measured.tolerance) if s is not None]
        finite = all(math.isfinite(number) for number in (measured.value, *spreads))
        if not finite or min(spreads, default=0.0) < 0:
            raise PluginError(
                f"metric {self.name!r} ({self.origin}) gave {measured.value} +- {measured.std}",
                hint="a metric gives a finite number, and a spread of at least 0 where it has one",
                code="plugin-metric-result-value",
                name=self.name,
            )
        return measured


def load_metric(name: str) -> Metric:
    """The metric that is registered under a name.

    Args:
        name: of the metric, with its argument where it takes one: ``kid``, ``lpips:alex``.

    Raises:
        UnknownNameError: nothing is registered under that name.
        InputError: an argument that it does not take.
        PluginError: what is registered cannot be imported or called.
    """
    found, config = look_up(get_registry().metrics, name)
    measure = found.entry.load()
    if not callable(measure):
        raise PluginError(
            f"{found.entry.impl} of the metric {name!r} cannot be called",
            code="plugin-metric-not-callable",
            name=name,
        )
    return Metric(found.entry.name, found.entry, str(found.origin), config, measure)
