"""Features that several metrics share: each made once, when a metric first asks for it."""

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

__all__ = ["AskedFeatures", "SharedFeatures"]

T = TypeVar("T")


class _Once(Generic[T]):
    """Something that is made when it is first asked for; what failed fails again, unmade."""

    def __init__(self, make: Callable[[], T], clock: Callable[[], float]) -> None:
        self._make = make
        self._clock = clock
        self._found: list[T] = []
        self._error: CascadezooError | None = None
        self.seconds: float | None = None
        """How long making it took; None before it was made."""

    def __call__(self) -> T:
        if self._error is not None:
            raise self._error
        if not self._found:
            began = self._clock()
            try:
                self._found.append(self._make())
            except CascadezooError as error:
                self._error = error
                raise
            self.seconds = self._clock() - began
        return self._found[0]


class SharedFeatures:
    """Features of samples and of real images, for as many metrics as look at them.

    Args:
        samples: the generated images.
        data: the real ones.
        extractor: what turns images into features.
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
        self._real: dict[int, _Once[Tensor]] = {}

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
        self.generated = _Once(sample, self.clock)
        """Of the samples, float32 [n, D]."""
        self.statistics = _Once(statistics, self.clock)
        """Of all real images."""

    def real(self, count: int) -> _Once[Tensor]:
        """Of so many real images, float32 [count, D]."""
        made = _Once(lambda: self._features(count), self.clock)
        return self._real.setdefault(count, made)

    def clock(self) -> float:
        """Seconds that were not spent on sampling, from some moment on."""
        return time.perf_counter() - self._samples.seconds


class AskedFeatures(MetricFeatures):
    """What one metric is given of them; keeps account of what it asked for.

    Args:
        shared: the features.
        n_real: how many real images the metric's entry asks for.
    """

    def __init__(self, shared: SharedFeatures, *, n_real: int) -> None:
        options = shared.options
        self.seed = options.seed
        self.subsets = options.subsets
        self.subset_size = options.subset_size_for(options.n, n_real)
        self.extractor = shared.extractor
        self._shared = shared
        self._count = n_real
        self._asked: set[_Once[Any]] = set()
        self._made = 0.0
        self._began = shared.clock()

    @property
    def generated(self) -> Tensor:
        """Features of sampled images; they are drawn for the first metric that asks."""
        return self._ask(self._shared.generated)

    @property
    def real(self) -> Tensor:
        """Features of real images; made for the first metric that asks."""
        return self._ask(self._shared.real(self._count))

    @property
    def n(self) -> int:
        """How many images are sampled."""
        return self._shared.options.n

    @property
    def n_real(self) -> int:
        """How many real images are compared with."""
        return self._count

    @property
    def num_features(self) -> int:
        """The length D of a feature vector."""
        return self._shared.extractor.num_features

    def real_statistics(self) -> Statistics:
        """Mean and covariance of the features of ``n_real`` images; those of all are streamed."""
        if self._count < self._shared.total:
            return Statistics.of(self.real)
        return self._ask(self._shared.statistics)

    def seconds(self) -> float:
        """What the metric takes, without sampling, as if it had made all that it looked at."""
        own = self._shared.clock() - self._began - self._made
        return own + sum(part.seconds or 0.0 for part in self._asked)

    def _ask(self, part: _Once[T]) -> T:
        known = part.seconds is not None
        found = part()
        if not known:
            self._made += part.seconds or 0.0
        self._asked.add(part)
        return found
