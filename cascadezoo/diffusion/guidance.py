"""Classifier-free guidance (Ho & Salimans 2022).

A network learns both the conditional and the unconditional prediction by having some labels
replaced by a null label in training. In sampling the two are combined::

    guided = unconditional + scale * (conditional - unconditional)

so a scale of 1 is the plain conditional prediction, 0 the unconditional one, and above 1 pushes
towards the label. (The paper's w is ``scale - 1``.) Another label in the place of the null label, a
negative one, is what the image is pushed away from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["drop_labels", "evaluations", "guided", "scale_within"]

Network = Callable[..., Tensor]
"""From images [N, C, H, W], times [N], labels int64 [N] and further conditions [N, ...] to the
prediction [N, C', H, W]."""


class Uniform(Protocol):
    """Where random numbers come from, e.g. a :class:`~cascadezoo.util.rng.Draw`."""

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


def scale_within(scale: float, level: float, interval: tuple[float, float]) -> float:
    """The scale inside an interval of noise levels, ends included, and 1 outside.

    Kynkäänniemi et al. 2024, "Applying Guidance in a Limited Interval": guidance at the noisiest
    levels costs variety, at the cleanest it does nothing; without it a step costs half.

    Args:
        scale: of guidance.
        level: where the image is, in 0..1.
        interval: the lowest and the highest level that is guided.
    """
    low, high = interval
    return scale if low <= level <= high else 1.0


def guided(
    network: Network,
    x: Tensor,
    times: Tensor,
    labels: Tensor,
    against: Tensor,
    scale: float,
    *conditions: Tensor,
    channels: int | None = None,
) -> Tensor:
    """The guided prediction, from one forward over both halves.

    Args:
        network: called as ``network(x, times, labels, *conditions)``.
        x: [N, C, H, W].
        times: [N].
        labels: int64 [N].
        against: what the other half is told, int64 [N]: the null label, or a negative one.
        scale: see above; 0 and 1 cost a single half.
        conditions: whatever else the network takes, each [N, ...]; the same for both halves.
        channels: only so many of the prediction's first channels are guided; the others, as a
            learned variance, are the conditional half's (at scale 0 the other half's, which is
            then the only one). None guides all.

    Returns:
        What the network gives, [N, C', H, W], float32.
    """
    if scale in (0.0, 1.0):
        return network(x, times, labels if scale else against, *conditions).float()
    both = network(
        torch.cat([x, x]),
        torch.cat([times, times]),
        torch.cat([labels, against]),
        *(torch.cat([condition, condition]) for condition in conditions),
    )
    conditional, unconditional = both.float().chunk(2)
    if channels is None or channels >= conditional.shape[1]:
        return torch.lerp(unconditional, conditional, scale)
    pushed = torch.lerp(unconditional[:, :channels], conditional[:, :channels], scale)
    return torch.cat([pushed, conditional[:, channels:]], dim=1)
