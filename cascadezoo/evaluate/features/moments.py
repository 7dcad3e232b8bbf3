"""Streaming mean and covariance of features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cascadezoo.errors import InputError

__all__ = ["Moments", "Statistics"]

_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Statistics:
    """Mean and covariance of feature vectors.

    Args:
        count: number of vectors.
        mean: float64 [D].
        covariance: float64 [D, D], unbiased.
    """

    count: int
    mean: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Statistics:
        """Compute the statistics of vectors in memory, floating [N, D] with N at least 2."""
        moments = Moments(features.shape[1])
        moments.add(features)
        return moments.statistics()


class Moments:
    """Running mean and scatter matrix in float64, without the vectors (Chan et al. 1979).

    Args:
        num_features: the length D of a vector.
    """

    def __init__(self, num_features: int) -> None:
        self.count = 0
        self._mean = torch.zeros(num_features, dtype=torch.float64)
        self._scatter = torch.zeros(num_features, num_features, dtype=torch.float64)

    def add(self, features: Tensor) -> None:
        """Add vectors, floating [N, D]."""
        if features.device.type != "mps":  # MPS does not support float64
            self._mean = self._mean.to(features.device)
            self._scatter = self._scatter.to(features.device)
        # In parts, because float64 doubles the memory.
        for part in torch.split(features, _ROWS):
            rows = part.to(self._mean.device).double()
            count, mean = len(rows), rows.mean(dim=0)
            rows = rows - mean
            delta = mean - self._mean
            total = self.count + count
            self._scatter.addmm_(rows.T, rows)
            self._scatter.addr_(delta, delta, alpha=self.count * count / total)
            self._mean += delta * (count / total)
            self.count = total

    def statistics(self) -> Statistics:
        """The statistics of all vectors so far.

        Raises:
            InputError: there are fewer than two vectors.
        """
        if self.count < 2:
            raise InputError(
                f"the covariance needs at least 2 images, not {self.count}",
                hint="use at least 2 images",
                code="input-too-few-covariance",
                count=self.count,
            )
        covariance = self._scatter / (self.count - 1)
        return Statistics(self.count, self._mean.cpu(), covariance.cpu())
