"""Images of a sampler, drawn once for all metrics that look at them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from cascadezoo.data.pixels import to_uint8
from cascadezoo.errors import CascadezooError, InputError

__all__ = ["SampleFn", "Samples"]

SampleFn = Callable[[int, int], Tensor]
"""``sample(first, count)`` draws images ``first`` to ``first + count - 1`` of one seed:
floating [count, C, H, W] in [-1, 1], the same images whatever the batches."""

KEPT_BYTES = 1 << 30


class Samples:
    """The images that a sampler draws, as the bytes that would be published.

    They are drawn in batches when they are asked for. Where several metrics look at them they are
    kept, as bytes and up to a limit; beyond it they are drawn again.

    Args:
        sample: draws them.
        shape: channels, height and width that they must have.
        batch_size: how many are drawn at once.
        keep: whether somebody will look at them again.
        kept_bytes: how much memory what is kept may take.
    """

    def __init__(
        self,
        sample: SampleFn,
        shape: tuple[int, int, int],
        *,
        batch_size: int = 64,
        keep: bool = False,
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        self.sample = sample
        self.shape = shape
        self.batch_size = batch_size
        self.drawn = 0
        """How many images were drawn, those that were drawn again included."""
        self.seconds = 0.0
        """How long drawing them took."""
        self.device = torch.device("cpu")
        """Where they were drawn."""
        self.failed: CascadezooError | RuntimeError | None = None
        """What drawing them failed with, if it did."""
        size = shape[0] * shape[1] * shape[2]
        self._room = kept_bytes // size if keep else 0
        self._kept: list[Tensor] = []
        self._sound = 0

    def batches(self, n: int) -> Iterator[Tensor]:
        """The first ``n`` images, uint8 [up to batch_size, C, H, W], where they were drawn.

        What failed once is not drawn again: it fails with the same error.

        Raises:
            InputError: fewer than one image, or the sampler gives images of another number, shape
                or type, or such that are not finite.
        """
        if n < 1 or self.batch_size < 1:
            raise InputError(
                f"{n} images in batches of {self.batch_size} cannot be sampled",
                hint="both must be at least 1",
                code="input-sample-count",
                n=n,
                batch_size=self.batch_size,
            )
        for place, first in enumerate(range(0, n, self.batch_size)):
            count = min(self.batch_size, n - first)
            images = self._kept[place] if place < len(self._kept) else None
            if images is None or len(images) < count:
                images = self._try(first, count)
                if place < len(self._kept):
                    self._kept[place] = images
                elif place == len(self._kept) and first + count <= self._room:
                    self._kept.append(images)
            yield images[:count]

    def speed(self) -> float | None:
        """Images drawn in a second; None before any were drawn."""
        return self.drawn / self.seconds if self.seconds > 0 else None

    def _try(self, first: int, count: int) -> Tensor:
        if self.failed is not None and first + count > self._sound:
            raise self.failed
        try:
            images = self._draw(first, count)
        except (CascadezooError, RuntimeError) as error:
            self.failed = error
            raise
        self._sound = max(self._sound, first + count)
        return images

    def _draw(self, first: int, count: int) -> Tensor:
        start = time.perf_counter()
        images = self.sample(first, count)
        if images.device.type == "cuda":
            torch.cuda.synchronize(images.device)
        self.seconds += time.perf_counter() - start
        self.drawn += count
        self.device = images.device
        if len(images) != count:
            raise InputError(
                f"the sampler gave {len(images)} images where {count} were asked for",
                hint="sample_fn(first, count) must return [count, C, H, W]",
                code="input-sampler-count",
                count=len(images),
                needed=count,
            )
        if tuple(images.shape[1:]) != self.shape:
            made, real = ("x".join(map(str, s)) for s in (images.shape[1:], self.shape))
            raise InputError(
                f"generated images are {made} and real ones {real} (channels, height, width)",
                hint="measure against the data at the cascade's own size and channels",
                code="input-images-unlike",
                generated=made,
                real=real,
            )
        return to_uint8(images)
