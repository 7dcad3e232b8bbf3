"""Stages one by one: what they make of real images, and a cascade cut after one of them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.data.base import ImageData
from cascadezoo.data.pixels import to_float

__all__ = ["RealFeed", "upto"]


def upto(cascade: Cascade, name: str) -> Cascade:
    """The cascade without the stages after one of them; it shares their weights.

    What the stages left out would ask of it is not asked: it makes whole images.

    Args:
        cascade: any.
        name: of the stage that shall be the last.
    """
    count = cascade.names.index(name) + 1
    if count == len(cascade.names):
        return cascade
    resolved = dataclasses.replace(cascade.resolved, stages=cascade.resolved.stages[:count])
    cut = Cascade(resolved, [stage for _, stage in cascade.named_stages()][:count])
    # Sampling puts a cascade's stages back into the mode that it says it is in.
    cut.training = cascade.training
    return cut


@dataclass(frozen=True, slots=True)
class RealFeed:
    """Real images, given to the stages of a cascade in the sizes that they receive.

    Args:
        cascade: the trained cascade.
        real: images of its size.
        rows: which of them, int64 [N].
        seed: of what the stages draw.
    """

    cascade: Cascade
    real: ImageData
    rows: NDArray[np.int64]
    seed: int

    def images(self, first: int, count: int) -> Tensor:
        """Real images ``first`` and on, floating [count, C, H, W] on the cascade's device."""
        rows = self.rows[first : first + count]
        return to_float(torch.from_numpy(self.real.images[rows]).to(self.cascade.device))

    @torch.no_grad()
    def targets(self, name: str, first: int, count: int) -> Tensor:
        """What the stage should make of images ``first`` and on: its targets."""
        images = self.images(first, count)
        for later in reversed(self.cascade.names[self.cascade.names.index(name) + 1 :]):
            images = self.cascade.stage(later).upstream_target(images)
        return images

    def upstream(self, name: str, first: int, count: int) -> Tensor:
        """What the stage receives: the targets of the stage before it."""
        return self.targets(self.cascade.names[self.cascade.names.index(name) - 1], first, count)

    def run(self, start: str, stop: str, first: int, count: int) -> Tensor:
        """Images of the stage ``stop`` where the stage ``start`` receives true upstream images.

        Args:
            start: the first stage that is run; not the generator.
            stop: the last one.
            first: the number of the first image; what stages draw follows from it.
            count: how many images.

        Returns:
            Floating [count, C, H, W].
        """
        images: Tensor = upto(self.cascade, stop).sample_from(
            start,
            self.upstream(start, first, count),
            labels=self._labels(first, count),
            seed=self.seed,
            first=first,
            batch_size=count,
        )
        return images

    def _labels(self, first: int, count: int) -> Tensor | None:
        if self.cascade.resolved.num_classes is None or self.real.labels is None:
            return None
        return torch.from_numpy(self.real.labels[self.rows[first : first + count]])
