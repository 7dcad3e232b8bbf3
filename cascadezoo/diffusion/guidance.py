"""Classifier-free guidance (Ho & Salimans 2022).

A network learns both the conditional and the unconditional prediction by having some labels
replaced by a null label in training. In sampling the two are combined::

    guided = unconditional + scale * (conditional - unconditional)

so a scale of 1 is the plain conditional prediction, 0 the unconditional one, and above 1 pushes
towards the label. (The paper's w is ``scale - 1``.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["drop_labels", "evaluations", "guided"]

Network = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From images [N, C, H, W], times [N] and labels int64 [N] to the prediction [N, C, H, W]."""


class Uniform(Protocol):
    """Where random numbers come from, e.g. a :class:`~cascadezoo.draws.Draw`."""

    def rand(self, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1)."""
        ...


def drop_labels(labels: Tensor, null: int, probability: float, draw: Uniform) -> Tensor:
    """Labels [N], each replaced by the null label with that probability."""
    if probability == 0:
        return labels
    return torch.where(draw.rand(labels.shape[0]) < probability, null, labels)


def evaluations(scale: float) -> int:
    """How many forwards of an image :func:`guided` makes at a scale: 2, or 1 at 0 and 1."""
    return 1 if scale in (0.0, 1.0) else 2


def guided(
    network: Network, x: Tensor, times: Tensor, labels: Tensor, null: int, scale: float
) -> Tensor:
    """The guided prediction, from one forward over both halves.

    Args:
        network: the network.
        x: [N, C, H, W].
        times: [N].
        labels: int64 [N].
        null: the label that stands for none.
        scale: see above; 0 and 1 cost a single half.

    Returns:
        [N, C, H, W], float32.
    """
    if scale == 1:
        return network(x, times, labels).float()
    nothing = torch.full_like(labels, null)
    if scale == 0:
        return network(x, times, nothing).float()
    both = network(torch.cat([x, x]), torch.cat([times, times]), torch.cat([labels, nothing]))
    conditional, unconditional = both.float().chunk(2)
    return torch.lerp(unconditional, conditional, scale)
