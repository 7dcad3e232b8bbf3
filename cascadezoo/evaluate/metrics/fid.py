"""Frechet Inception Distance, with torch-fidelity's arithmetic on streamed statistics."""

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
"""Directions with a smaller share of the largest variance than this have none."""


@dataclass(frozen=True, slots=True)
class Fid:
    """The distance, and the standard error that the choice of generated images gives it."""

    value: float
    std: float


def require_covariance(n: int, n_real: int, num_features: int) -> None:
    """Refuse an FID whose covariances would be singular; to be asked before sampling.

    Args:
        n: how many generated images there are.
        n_real: how many real ones.
        num_features: the length D of a feature vector.

    Raises:
        InputError: either has no more than D images.
    """
    for which, count in (("generated", n), ("real", n_real)):
        if count <= num_features:
            raise InputError(
                f"FID on {num_features} features needs the covariance of at least "
                f"{num_features + 1} {which} images, and there are {count}",
                hint=f"take at least {num_features + 1} {which} images (10,000 and more for a "
                'figure to report), or measure "kid", which is unbiased at any number',
                code="input-too-few-images",
                which=which,
                count=count,
                needed=num_features + 1,
            )


def frechet_distance(generated: Tensor, real: Statistics) -> Fid:
    """The Frechet distance between two Gaussians (Heusel et al. 2017, eq. 6), in float64.

    ``|m - w|^2 + tr(C + V - 2 (C V)^(1/2))`` is torch-fidelity's. Its standard error is that of
    the infinitesimal jackknife (Efron 1982): each generated image changes the distance by about
    ``2 (m - w) (x - m) + (x - m) (I - T) (x - m)``, up to a constant, where T is the matrix that
    takes the generated Gaussian to the real one; the standard deviation of that over the images,
    divided by ``sqrt(N)``. The real statistics count as given.

    Args:
        generated: features, floating [N, D], N at least 2. With N no more than D the covariance is
            singular, and the number says little: see :func:`require_covariance`.
        real: the statistics of the real ones.

    Returns:
        The distance, which is biased upwards by about ``1 / N``, and its standard error.

    Raises:
        InputError: fewer than two images, or lengths D that differ.
    """
    if generated.dim() != 2 or generated.shape[1:] != real.mean.shape:
        raise InputError(
            f"features of the shape {tuple(generated.shape)} cannot be compared with statistics "
            f"of {len(real.mean)} features",
            hint="make both with one extractor",
            code="input-features-unlike",
            shape=tuple(generated.shape),
        )
    # torch-fidelity takes seconds to import.
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

    made = Statistics.of(generated)
    ours, theirs = (
        {"mu": part.mean.numpy(), "sigma": part.covariance.numpy()} for part in (made, real)
    )
    found = fid_statistics_to_metric(ours, theirs, False)  # type: ignore[no-untyped-call]
    return Fid(float(found[KEY_METRIC_FID]), _standard_error(generated, made, real))


def measure(config: EmptyConfig, features: MetricFeatures) -> Measured:
    """FID as ``evaluation.metrics`` of a spec asks for it, to all images of the split.

    Its tolerance is what other images of the same cascade would differ by, at most, nineteen
    times in twenty.
    """
    require_covariance(features.n, features.n_real, features.num_features)
    found = frechet_distance(features.generated, features.real_statistics())
    return Measured(found.value, found.std, tolerance=REDRAWN * found.std)


def _standard_error(generated: Tensor, made: Statistics, real: Statistics) -> float:
    """Of the distance; see :func:`frechet_distance`."""
    values, vectors = torch.linalg.eigh(real.covariance)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    values, vectors = torch.linalg.eigh(root @ made.covariance @ root)
    flat = values <= _FLAT * values[-1]
    sides = root @ (vectors * torch.where(flat, 0, values.clamp(min=1e-300) ** -0.25))
    apart = made.mean - real.mean
    count, mean, squares = 0, 0.0, 0.0
    for part in torch.split(generated, 1024):
        rows = part.cpu().double() - made.mean
        changes = 2 * rows @ apart + rows.square().sum(dim=1) - (rows @ sides).square().sum(dim=1)
        step = float(changes.mean()) - mean
        total = count + len(rows)
        squares += float((changes - changes.mean()).square().sum())
        squares += step**2 * count * len(rows) / total
        mean += step * len(rows) / total
        count = total
    return float((squares / (count - 1) / count) ** 0.5)
