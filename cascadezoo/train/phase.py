"""What one phase of a training needs while it runs."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from cascadezoo.data.loader import DeviceLoader
from cascadezoo.spec import PhaseSpec
from cascadezoo.train.ema import Ema
from cascadezoo.train.optim import GroupOptimizer
from cascadezoo.train.reflow import PairLoader
from cascadezoo.train.step import PhaseWalk

__all__ = ["Batches", "PhaseRun", "epoch_steps"]

# Far more epochs than any phase has: each phase goes through epochs of its own.
EPOCHS = 1_000_000


class Batches:
    """The batches of a phase: the dataset's, or the generator's own pairs.

    Args:
        loader: the training images.
        phase: the number of the phase.
        labelled: whether the cascade knows labels.
        pairs: in the place of the images.
    """

    def __init__(
        self, loader: DeviceLoader, phase: int, labelled: bool, pairs: PairLoader | None = None
    ) -> None:
        self.loader = loader
        self.phase = phase
        self.labelled = labelled
        self.pairs = pairs

    def batch(self, epoch: int, index: int) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Images, labels and noise; the noise is None unless the images are those of pairs."""
        if self.pairs is not None:
            noise, images, labels = self.pairs.batch(epoch, index)
            return images, labels, noise
        images, labels = self.loader.batch(self.phase * EPOCHS + epoch, index)
        return images, labels if self.labelled else None, None


@dataclass(slots=True)
class PhaseRun:
    """One phase while it runs.

    Args:
        spec: the phase.
        index: its number.
        total: how many steps it has.
        per_epoch: how many steps its epochs have.
        walk: computes its losses.
        optimizers: one for each parameter group.
        ema: the average of the weights.
        batches: what it trains on.
    """

    spec: PhaseSpec
    index: int
    total: int
    per_epoch: int
    walk: PhaseWalk
    optimizers: list[GroupOptimizer]
    ema: Ema | None
    batches: Batches


def epoch_steps(spec: PhaseSpec, loader: DeviceLoader) -> int:
    """How many steps an epoch of a phase has."""
    if spec.reflow is None:
        return loader.steps_per_epoch
    return max(1, spec.reflow.pairs // loader.batch_size)
