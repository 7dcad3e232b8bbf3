"""Mean and covariance of features, gathered as they come."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cascadezoo.errors import InputError

__all__ = ["Moments", "Statistics"]

_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a Gaussian knows of features.

    Args:
        count: of how many vectors.
        mean: float64 [D].
        covariance: float64 [D, D], unbiased.
    """

    count: int
    mean: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Statistics:
        """Of vectors that are there already, floating [N, D] with N of at least 2."""
        moments = Moments(features.shape[1])
        moments.add(features)
        return moments.statistics()


class Moments:
    """Running mean and scatter in float64, so that vectors need not be kept (Chan et al. 1979).

    Args:
        num_features: the length D of a vector.
    """

    def __init__(self, num_features: int) -> None:
        self.count = 0
        self._mean = torch.zeros(num_features, dtype=torch.float64)
        self._scatter = torch.zeros(num_features, num_features, dtype=torch.float64)

    def add(self, features: Tensor) -> None:
        """Take vectors, floating [N, D]."""
        if features.device.type != "mps":  # which knows no float64
            self._mean = self._mean.to(features.device)
            self._scatter = self._scatter.to(features.device)
        # In parts: they become twice as large as they are.
        for part in torch.split(features, _ROWS):
            rows = part.to(self._mean.device).double()
            count, mean = len(rows), rows.mean(dim=0)
            rows = rows - mean
            apart = mean - self._mean
            total = self.count + count
            self._scatter.addmm_(rows.T, rows)
            self._scatter.addr_(apart, apart, alpha=self.count * count / total)
            self._mean += apart * (count / total)
            self.count = total

    def statistics(self) -> Statistics:
        """Of everything taken so far.

        Raises:
            InputError: fewer than two vectors.
        """
        if self.count < 2:
            raise InputError(
                f"{self.count} images have no covariance",
                hint="take at least 2 images",
                code="input-too-few-covariance",
                count=self.count,
            )
        covariance = self._scatter / (self.count - 1)
        return Statistics(self.count, self._mean.cpu(), covariance.cpu())
