"""Improved precision and recall: which of two sets lies within the other's neighbourhoods."""

from __future__ import annotations

import torch
from torch import Tensor

from cascadezoo.errors import InputError
from cascadezoo.evaluate.metrics.base import REDRAWN, Measured, MetricFeatures
from cascadezoo.spec.configs import EmptyConfig

__all__ = ["NEIGHBOURS", "coverage", "measure_precision", "measure_recall"]

NEIGHBOURS = 3
"""Up to which neighbour the ball around a vector reaches, as in Kynkaanniemi et al. 2019."""

_BLOCK = 1 << 24
"""How many distances are held at a time: 64 MiB."""


def coverage(inside: Tensor, of: Tensor, *, neighbours: int = NEIGHBOURS) -> float:
    """The share of vectors inside the manifold of others (Kynkaanniemi et al. 2019, eq. 1).

    The manifold is the union of balls around the others, each reaching to its k-th nearest
    neighbour among them. Precision is that of generated images in the manifold of real ones,
    recall that of real ones in the manifold of generated ones. The value is torch-fidelity's
    (``metric_prc``), which holds all distances of its batches and always takes both.

    Args:
        inside: floating [N, D].
        of: floating [M, D] on the same device, M above ``neighbours``.
        neighbours: k, at least 1.

    Returns:
        A share of N, in [0, 1].

    Raises:
        InputError: too few vectors, or lengths D that differ.
    """
    if inside.dim() != 2 or of.dim() != 2 or inside.shape[1] != of.shape[1]:
        raise InputError(
            f"features of the shapes {tuple(inside.shape)} and {tuple(of.shape)} cannot be "
            "compared; both must be [N, D] with one D",
            hint="make both with one extractor",
            code="input-features-unlike",
            shapes=(tuple(inside.shape), tuple(of.shape)),
        )
    _require_neighbours(len(inside), len(of), neighbours)
    rows = max(1, _BLOCK // len(of))
    # The nearest of all is the vector itself.
    reach = torch.cat(
        [
            torch.cdist(part, of).kthvalue(neighbours + 1, dim=1).values
            for part in torch.split(of, rows)
        ]
    )
    within = [
        (torch.cdist(part, of) <= reach).any(dim=1).sum() for part in torch.split(inside, rows)
    ]
    return int(torch.stack(within).sum()) / len(inside)


def measure_precision(config: EmptyConfig, features: MetricFeatures) -> Measured:
    """The share of generated images that lie where real ones are."""
    _require_neighbours(features.n, features.n_real, NEIGHBOURS)
    return _share(coverage(features.generated, features.real), features.n)


def measure_recall(config: EmptyConfig, features: MetricFeatures) -> Measured:
    """The share of real images that lie where generated ones are."""
    _require_neighbours(features.n_real, features.n, NEIGHBOURS)
    return _share(coverage(features.real, features.generated), features.n_real)


def _share(value: float, count: int) -> Measured:
    """With the standard error of a share (Agresti and Coull 1998), above 0 even for 0 and 1."""
    middle = (value * count + 2) / (count + 4)
    std = (middle * (1 - middle) / (count + 4)) ** 0.5
    return Measured(value, std, tolerance=REDRAWN * std, settings={"neighbours": NEIGHBOURS})


def _require_neighbours(inside: int, of: int, neighbours: int) -> None:
    if inside < 1 or neighbours < 1 or of <= neighbours:
        raise InputError(
            f"precision and recall with {neighbours} neighbours need at least "
            f"{max(neighbours, 1) + 1} images of either sort, and there are {inside} and {of}",
            hint="take more images; the paper takes 50,000",
            code="input-too-few-images",
            count=min(inside, of),
            needed=max(neighbours, 1) + 1,
        )
