"""Frechet Inception Distance by torch-fidelity, on streamed statistics."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cascadezoo.errors import InputError
from cascadezoo.evaluate.features.moments import Statistics
from cascadezoo.evaluate.metrics.base import REDRAWN, Measured, MetricFeatures
from cascadezoo.spec.configs import EmptyConfig

__all__ = ["Fid", "frechet_distance", "measure", "require_covariance"]

_FLAT = 1e-12
"""Directions with a smaller share of the largest variance count as zero."""


@dataclass(frozen=True, slots=True)
class Fid:
    """The distance and its standard error over draws of the generated images."""

    value: float
    std: float


def require_covariance(n: int, n_real: int, num_features: int) -> None:
    """Refuse an FID with a singular covariance. Call this before sampling.

    Args:
        n: number of generated images.
        n_real: number of real images.
        num_features: the length D of a feature vector.

    Raises:
        InputError: one of the numbers is at most D.
    """
    for which, count in (("generated", n), ("real", n_real)):
        if count <= num_features:
            raise InputError(
                f"FID on {num_features} features needs at least {num_features + 1} {which} "
                f"images, not {count}",
                hint=f"use at least {num_features + 1} {which} images (10,000 or more for "
                'published figures), or measure "kid", which is unbiased for any number',
                code="input-too-few-images",
                which=which,
                count=count,
                needed=num_features + 1,
            )


def frechet_distance(generated: Tensor, real: Statistics) -> Fid:
    """The Frechet distance between two Gaussians (Heusel et al. 2017, eq. 6), in float64.

    torch-fidelity computes ``|m - w|^2 + tr(C + V - 2 (C V)^(1/2))``. The standard error is that of
    the infinitesimal jackknife (Efron 1982): each generated image x changes the distance by about
    ``2 (m - w) (x - m) + (x - m) (I - T) (x - m)``, up to a constant, where the matrix T maps the
    generated Gaussian to the real one. The standard error is the standard deviation of these
    changes divided by ``sqrt(N)``. The real statistics count as exact.

    Args:
        generated: features, floating [N, D], N at least 2. If N is at most D, the covariance is
            singular and the distance says little; see :func:`require_covariance`.
        real: the statistics of the real features.

    Returns:
        The distance, with an upward bias of about ``1 / N``, and its standard error.

    Raises:
        InputError: there are fewer than two images, or the lengths D differ.
    """
    if generated.dim() != 2 or generated.shape[1:] != real.mean.shape:
        raise InputError(
            f"cannot compare features of shape {tuple(generated.shape)} with statistics of "
            f"{len(real.mean)} features",
            hint="use the same extractor for both",
            code="input-features-unlike",
            shape=tuple(generated.shape),
        )
    # torch-fidelity takes seconds to import.
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

    own = Statistics.of(generated)
    first, second = (
        {"mu": part.mean.numpy(), "sigma": part.covariance.numpy()} for part in (own, real)
    )
    result = fid_statistics_to_metric(first, second, False)  # type: ignore[no-untyped-call]
    return Fid(float(result[KEY_METRIC_FID]), _standard_error(generated, own, real))


def measure(config: EmptyConfig, features: MetricFeatures) -> Measured:
    """The metric ``fid``: FID to all real images of the split.

    19 times out of 20, other images of the same cascade differ by less than the tolerance.
    """
    require_covariance(features.n, features.n_real, features.num_features)
    fid = frechet_distance(features.generated, features.real_statistics())
    return Measured(fid.value, fid.std, tolerance=REDRAWN * fid.std)


def _standard_error(generated: Tensor, own: Statistics, real: Statistics) -> float:
    """The standard error of the distance; see :func:`frechet_distance`."""
    values, vectors = torch.linalg.eigh(real.covariance)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    values, vectors = torch.linalg.eigh(root @ own.covariance @ root)
    flat = values <= _FLAT * values[-1]
    sides = root @ (vectors * torch.where(flat, 0, values.clamp(min=1e-300) ** -0.25))
    delta = own.mean - real.mean
    count, mean, squares = 0, 0.0, 0.0
    for part in torch.split(generated, 1024):
        rows = part.cpu().double() - own.mean
        changes = 2 * rows @ delta + rows.square().sum(dim=1) - (rows @ sides).square().sum(dim=1)
        step = float(changes.mean()) - mean
        total = count + len(rows)
        squares += float((changes - changes.mean()).square().sum())
        squares += step**2 * count * len(rows) / total
        mean += step * len(rows) / total
        count = total
    return float((squares / (count - 1) / count) ** 0.5)
