"""Improved precision and recall: the share of one set within the manifold of the other."""

from __future__ import annotations

import torch
from torch import Tensor

from cascadezoo.errors import InputError
from cascadezoo.evaluate.configs import NEIGHBOURS
from cascadezoo.evaluate.metrics.base import Measured, MetricFeatures
from cascadezoo.evaluate.metrics.mean_scores import share_with_error
from cascadezoo.spec.configs import EmptyConfig

__all__ = ["NEIGHBOURS", "coverage", "measure_precision", "measure_recall"]

_BLOCK = 1 << 24
"""Maximum number of distances in memory: 64 MiB."""


def coverage(inside: Tensor, of: Tensor, *, neighbours: int = NEIGHBOURS) -> float:
    """The share of vectors inside the manifold of others (Kynkaanniemi et al. 2019, eq. 1).

    The manifold is the union of balls around the others; the radius of a ball is the distance to
    the k-th nearest neighbour. Precision is the share of generated images in the manifold of real
    images; recall is the share of real images in that of generated images. The value equals that
    of torch-fidelity (``metric_prc``), which always computes both and needs more memory.

    Args:
        inside: floating [N, D].
        of: floating [M, D] on the same device, M above ``neighbours``.
        neighbours: k, at least 1.

    Returns:
        The share, in [0, 1].

    Raises:
        InputError: there are too few vectors, or the lengths D differ.
    """
    if inside.dim() != 2 or of.dim() != 2 or inside.shape[1] != of.shape[1]:
        raise InputError(
            f"cannot compare features of shapes {tuple(inside.shape)} and {tuple(of.shape)}; both "
            "must be [N, D] with the same D",
            hint="use the same extractor for both",
            code="input-features-unlike",
            shapes=(tuple(inside.shape), tuple(of.shape)),
        )
    _require_neighbours(len(inside), len(of), neighbours)
    rows = max(1, _BLOCK // len(of))
    # The first neighbour is the vector itself.
    radii = torch.cat(
        [
            torch.cdist(part, of).kthvalue(neighbours + 1, dim=1).values
            for part in torch.split(of, rows)
        ]
    )
    within = [
        (torch.cdist(part, of) <= radii).any(dim=1).sum() for part in torch.split(inside, rows)
    ]
    return int(torch.stack(within).sum()) / len(inside)


def measure_precision(config: EmptyConfig, features: MetricFeatures) -> Measured:
    """The metric ``precision``: the share of generated images in the manifold of real images."""
    _require_neighbours(features.n, features.n_real, NEIGHBOURS)
    share = coverage(features.generated, features.real)
    return share_with_error(share, features.n, settings={"neighbours": NEIGHBOURS})


def measure_recall(config: EmptyConfig, features: MetricFeatures) -> Measured:
    """The metric ``recall``: the share of real images in the manifold of generated images."""
    _require_neighbours(features.n_real, features.n, NEIGHBOURS)
    share = coverage(features.real, features.generated)
    return share_with_error(share, features.n_real, settings={"neighbours": NEIGHBOURS})


def _require_neighbours(inside: int, of: int, neighbours: int) -> None:
    if inside < 1 or neighbours < 1 or of <= neighbours:
        raise InputError(
            f"precision and recall with {neighbours} neighbours need at least "
            f"{max(neighbours, 1) + 1} images of each kind, not {inside} and {of}",
            hint="use more images; the paper uses 50,000",
            code="input-too-few-images",
            count=min(inside, of),
            needed=max(neighbours, 1) + 1,
        )
