"""Features that several metrics share: each is computed once, on first use."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from torch import Tensor

from cascadezoo.data.base import ImageData
from cascadezoo.errors import CascadezooError
from cascadezoo.evaluate.evaluate_sampler import sample_features
from cascadezoo.evaluate.features.base import FeatureExtractor
from cascadezoo.evaluate.features.moments import Statistics
from cascadezoo.evaluate.metrics.base import MetricFeatures
from cascadezoo.evaluate.options import EvaluationOptions
from cascadezoo.evaluate.real_features import real_features, real_statistics
from cascadezoo.evaluate.samples import Samples

__all__ = ["SharedFeatures", "TrackedFeatures"]

T = TypeVar("T")


class _Lazy(Generic[T]):
    """A value that is computed on first use; a failure is not retried but raised again."""

    def __init__(self, make: Callable[[], T], clock: Callable[[], float]) -> None:
        self._make = make
        self._clock = clock
        self._value: list[T] = []
        self._error: CascadezooError | None = None
        self.seconds: float | None = None
        """Duration of the computation; None before it."""

    def __call__(self) -> T:
        if self._error is not None:
            raise self._error
        if not self._value:
            began = self._clock()
            try:
                self._value.append(self._make())
            except CascadezooError as error:
                self._error = error
                raise
            self.seconds = self._clock() - began
        return self._value[0]


class SharedFeatures:
    """Features of samples and of real images for all metrics of an evaluation.

    Args:
        samples: the generated images.
        data: the real images.
        extractor: the feature extractor.
        options: how to measure.
    """

    def __init__(
        self,
        samples: Samples,
        data: ImageData,
        extractor: FeatureExtractor,
        options: EvaluationOptions,
    ) -> None:
        self.extractor = extractor
        self.options = options
        self.total = len(data)
        self._samples = samples
        self._real: dict[int, _Lazy[Tensor]] = {}

        def sample() -> Tensor:
            sampled = sample_features(samples, extractor, options.n, precision=options.precision)
            return sampled.features

        def features(count: int) -> Tensor:
            return real_features(
                data, extractor, count=count, precision=options.precision, cache=options.cache
            )

        def statistics() -> Statistics:
            return real_statistics(
                data, extractor, precision=options.precision, cache=options.cache
            )

        self._features = features
        self.generated = _Lazy(sample, self.clock)
        """Features of the samples, float32 [n, D]."""
        self.statistics = _Lazy(statistics, self.clock)
        """Mean and covariance over all real images."""

    def real(self, count: int) -> _Lazy[Tensor]:
        """Features of ``count`` real images, float32 [count, D]."""
        features = _Lazy(lambda: self._features(count), self.clock)
        return self._real.setdefault(count, features)

    def clock(self) -> float:
        """A clock in seconds that stands still during sampling."""
        return time.perf_counter() - self._samples.seconds


class TrackedFeatures(MetricFeatures):
    """The features that one metric receives; records which ones it used.

    Args:
        shared: the shared features.
        n_real: number of real images that the metric's entry requests.
    """

    def __init__(self, shared: SharedFeatures, *, n_real: int) -> None:
        options = shared.options
        self.seed = options.seed
        self.subsets = options.subsets
        self.subset_size = options.subset_size_for(options.n, n_real)
        self.extractor = shared.extractor
        self._shared = shared
        self._count = n_real
        self._used: set[_Lazy[Any]] = set()
        self._computing = 0.0
        self._began = shared.clock()

    @property
    def generated(self) -> Tensor:
        """Features of sampled images; the first use draws the images."""
        return self._use(self._shared.generated)

    @property
    def real(self) -> Tensor:
        """Features of real images, computed on first use."""
        return self._use(self._shared.real(self._count))

    @property
    def n(self) -> int:
        """Number of sampled images."""
        return self._shared.options.n

    @property
    def n_real(self) -> int:
        """Number of real images."""
        return self._count

    @property
    def num_features(self) -> int:
        """The length D of a feature vector."""
        return self._shared.extractor.num_features

    def real_statistics(self) -> Statistics:
        """Mean and covariance of the features of ``n_real`` images; streamed if these are all."""
        if self._count < self._shared.total:
            return Statistics.of(self.real)
        return self._use(self._shared.statistics)

    def seconds(self) -> float:
        """Duration without sampling, including that of every feature that the metric used."""
        own = self._shared.clock() - self._began - self._computing
        return own + sum(part.seconds or 0.0 for part in self._used)

    def _use(self, part: _Lazy[T]) -> T:
        known = part.seconds is not None
        value = part()
        if not known:
            self._computing += part.seconds or 0.0
        self._used.add(part)
        return value
