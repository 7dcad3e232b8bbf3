"""The state of one running phase of a training."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from cascadezoo.data.loader import BatchLoader
from cascadezoo.spec import PhaseSpec
from cascadezoo.train.ema import Ema
from cascadezoo.train.exchange import GradientExchange
from cascadezoo.train.optim import GroupOptimizer
from cascadezoo.train.reflow import PairLoader
from cascadezoo.train.stage_state import StageState
from cascadezoo.train.step import PhaseWalk

__all__ = ["Batches", "PhaseRun", "epoch_steps"]

# More epochs than any phase has, so that each phase has its own epochs of the loader.
EPOCHS = 1_000_000


class Batches:
    """The batches of a phase: the dataset's, or the generator's own pairs.

    Args:
        loader: the training images.
        phase: index of the phase.
        labelled: whether the cascade uses labels.
        pairs: pairs to train on instead of the images.
    """

    def __init__(
        self, loader: BatchLoader, phase: int, labelled: bool, pairs: PairLoader | None = None
    ) -> None:
        self.loader = loader
        self.phase = phase
        self.labelled = labelled
        self.pairs = pairs

    def batch(self, epoch: int, index: int) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Images, labels and noise; the noise is None unless the images come from pairs."""
        if self.pairs is not None:
            noise, images, labels = self.pairs.batch(epoch, index)
            return images, labels, noise
        images, labels = self.loader.batch(self.phase * EPOCHS + epoch, index)
        return images, labels if self.labelled else None, None


@dataclass(slots=True)
class PhaseRun:
    """A running phase.

    Args:
        spec: the phase.
        index: its index.
        total: its number of steps.
        per_epoch: number of steps of an epoch.
        walk: computes its losses.
        optimizers: one for each parameter group.
        ema: the average of the weights.
        batches: the training batches.
        exchange: averages the gradients over the processes.
        state: moves and shares the state of the trained stages.
    """

    spec: PhaseSpec
    index: int
    total: int
    per_epoch: int
    walk: PhaseWalk
    optimizers: list[GroupOptimizer]
    ema: Ema | None
    batches: Batches
    exchange: GradientExchange
    state: StageState


def epoch_steps(spec: PhaseSpec, loader: BatchLoader) -> int:
    """Number of steps of an epoch of a phase."""
    if spec.reflow is None:
        return loader.steps_per_epoch
    return max(1, spec.reflow.pairs // loader.batch_size)
