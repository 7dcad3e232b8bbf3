"""Classifier-free guidance (Ho & Salimans 2022).

Training replaces some labels by a null label, so a network learns both the conditional and the
unconditional prediction. Sampling combines the two::

    guided = unconditional + scale * (conditional - unconditional)

so a scale of 1 is the plain conditional prediction, 0 the unconditional one, and above 1 pushes
towards the label. (The paper's w is ``scale - 1``.) A negative label can replace the null label;
the image is then pushed away from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["both_halves", "drop_labels", "evaluations", "guided", "scale_within"]

Network = Callable[..., Tensor]
"""Maps images [N, C, H, W], times [N], labels int64 [N] and further conditions [N, ...] to the
prediction [N, C', H, W]."""


class Uniform(Protocol):
    """A source of random numbers, e.g. a :class:`~cascadezoo.util.rng.Draw`."""

    def rand(self, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1)."""
        ...


def drop_labels(labels: Tensor, null: int, probability: float, draw: Uniform) -> Tensor:
    """Labels [N], each replaced by the null label with that probability."""
    if probability == 0:
        return labels
    return torch.where(draw.rand(labels.shape[0]) < probability, null, labels)


def evaluations(scale: float) -> int:
    """Number of forward passes per image in :func:`guided`: 1 at scales 0 and 1, otherwise 2."""
    return 1 if scale in (0.0, 1.0) else 2


def scale_within(scale: float, level: float, interval: tuple[float, float]) -> float:
    """The scale inside an interval of noise levels, ends included, and 1 outside.

    Kynkäänniemi et al. 2024, "Applying Guidance in a Limited Interval": guidance at the noisiest
    levels reduces variety, and at the cleanest levels has no effect. Without it a step costs half.

    Args:
        scale: of guidance.
        level: the noise level of the image, in 0..1.
        interval: the lowest and the highest level with guidance.
    """
    low, high = interval
    return scale if low <= level <= high else 1.0


def both_halves(labels: Tensor, negative: Tensor, *conditions: Tensor) -> list[Tensor]:
    """Labels and conditions for both halves of :func:`guided`, the same in all steps.

    Args:
        labels: int64 [N].
        negative: int64 [N].
        conditions: each [N, ...].

    Returns:
        The labels [2 N] and the conditions, each [2 N, ...].
    """
    return [torch.cat([labels, negative]), *(torch.cat([each, each]) for each in conditions)]


def guided(
    network: Network,
    x: Tensor,
    times: Tensor,
    labels: Tensor,
    negative: Tensor,
    scale: float,
    *conditions: Tensor,
    channels: int | None = None,
    both: Sequence[Tensor] | None = None,
) -> Tensor:
    """The guided prediction, from one forward pass over both halves.

    Args:
        network: called as ``network(x, times, labels, *conditions)``.
        x: [N, C, H, W].
        times: [N].
        labels: int64 [N].
        negative: the labels of the other half, int64 [N]: the null label, or a negative label.
        scale: see above; 0 and 1 need only one half.
        conditions: further inputs of the network, each [N, ...]; the same for both halves.
        channels: number of guided channels, the first of the prediction. The others, such as a
            learned variance, come from the conditional half (at scale 0 from the other half, which
            is then the only one). None guides all.
        both: the result of :func:`both_halves`; None computes it.

    Returns:
        The prediction, [N, C', H, W], float32.
    """
    if scale in (0.0, 1.0):
        return network(x, times, labels if scale else negative, *conditions).float()
    constant = both_halves(labels, negative, *conditions) if both is None else both
    predictions = network(torch.cat([x, x]), torch.cat([times, times]), *constant)
    conditional, unconditional = predictions.float().chunk(2)
    if channels is None or channels >= conditional.shape[1]:
        return torch.lerp(unconditional, conditional, scale)
    pushed = torch.lerp(unconditional[:, :channels], conditional[:, :channels], scale)
    return torch.cat([pushed, conditional[:, channels:]], dim=1)
