"""Parts of a cascade: single stages on real images, and a cascade cut after a stage."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.cascade.stage_calls import upstream_target
from cascadezoo.data.base import ImageData
from cascadezoo.data.pixels import to_float

__all__ = ["RealFeed", "upto"]


def upto(cascade: Cascade, name: str) -> Cascade:
    """Cut a cascade after a stage; both share the weights.

    The cut cascade makes finished images: requests of later stages, such as an early stop, do not
    apply.

    Args:
        cascade: any cascade.
        name: the name of the last stage to keep.
    """
    count = cascade.names.index(name) + 1
    if count == len(cascade.names):
        return cascade
    resolved = dataclasses.replace(cascade.resolved, stages=cascade.resolved.stages[:count])
    cut = Cascade(resolved, [stage for _, stage in cascade.named_stages()][:count])
    # Sampling restores the stages to the mode of their cascade.
    cut.training = cascade.training
    return cut


@dataclass(frozen=True, slots=True)
class RealFeed:
    """Real images as input of the stages of a cascade, in the sizes that they need.

    Args:
        cascade: the trained cascade.
        real: images in the cascade's size.
        rows: the indices of the images to use, int64 [N].
        seed: seed of the stages' random draws.
    """

    cascade: Cascade
    real: ImageData
    rows: NDArray[np.int64]
    seed: int

    def images(self, first: int, count: int) -> Tensor:
        """Real images from ``first`` on, floating [count, C, H, W] on the cascade's device."""
        rows = self.rows[first : first + count]
        return to_float(torch.from_numpy(self.real.images[rows]).to(self.cascade.device))

    @torch.no_grad()
    def targets(self, name: str, first: int, count: int) -> Tensor:
        """The stage's targets for the images from number ``first`` on."""
        images = self.images(first, count)
        for later in reversed(self.cascade.names[self.cascade.names.index(name) + 1 :]):
            images = upstream_target(self.cascade.stage(later), images)
        return images

    def upstream(self, name: str, first: int, count: int) -> Tensor:
        """The true input of the stage: the targets of the stage before it."""
        return self.targets(self.cascade.names[self.cascade.names.index(name) - 1], first, count)

    def run(self, start: str, stop: str, first: int, count: int) -> Tensor:
        """Run the stages from ``start`` to ``stop`` on the true input of ``start``.

        Args:
            start: the first stage to run; not the generator.
            stop: the last stage to run.
            first: the number of the first image, on which the stages' random draws depend.
            count: number of images.

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
