"""The images of a sampler, drawn once and shared by all metrics."""

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
floating [count, C, H, W] in [-1, 1]. The images do not depend on the batches."""

KEPT_BYTES = 1 << 30


class Samples:
    """The images of a sampler, rounded to 8 bits as published images are.

    They are drawn in batches on request. With ``keep`` they stay in memory up to a limit; images
    beyond it are drawn again.

    Args:
        sample: draws the images.
        shape: the expected channels, height and width.
        batch_size: number of images per batch.
        keep: whether the images will be requested again.
        kept_bytes: maximum memory for kept images.
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
        """Number of drawn images, including repeated ones."""
        self.seconds = 0.0
        """Duration of the drawing."""
        self.device = torch.device("cpu")
        """The device of the images."""
        self.failed: CascadezooError | RuntimeError | None = None
        """The error of the sampler, if it failed."""
        size = shape[0] * shape[1] * shape[2]
        self._room = kept_bytes // size if keep else 0
        self._kept: list[Tensor] = []
        self._drawable = 0

    def batches(self, n: int) -> Iterator[Tensor]:
        """The first ``n`` images, uint8 [up to batch_size, C, H, W], on the sampler's device.

        A batch that failed once is not drawn again: the same error is raised.

        Raises:
            InputError: ``n`` or the batch size is less than 1, or the sampler returns images of the
                wrong number, shape or type, or images that are not finite.
        """
        if n < 1 or self.batch_size < 1:
            raise InputError(
                f"cannot sample {n} images in batches of {self.batch_size}",
                hint="both numbers must be at least 1",
                code="input-sample-count",
                n=n,
                batch_size=self.batch_size,
            )
        for index, first in enumerate(range(0, n, self.batch_size)):
            count = min(self.batch_size, n - first)
            images = self._kept[index] if index < len(self._kept) else None
            if images is None or len(images) < count:
                images = self._try(first, count)
                if index < len(self._kept):
                    self._kept[index] = images
                elif index == len(self._kept) and first + count <= self._room:
                    self._kept.append(images)
            yield images[:count]

    def speed(self) -> float | None:
        """Images per second; None before the first image."""
        return self.drawn / self.seconds if self.seconds > 0 else None

    def _try(self, first: int, count: int) -> Tensor:
        if self.failed is not None and first + count > self._drawable:
            raise self.failed
        try:
            images = self._draw(first, count)
        except (CascadezooError, RuntimeError) as error:
            self.failed = error
            raise
        self._drawable = max(self._drawable, first + count)
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
                f"the sampler returned {len(images)} images, not {count}",
                hint="sample_fn(first, count) must return [count, C, H, W]",
                code="input-sampler-count",
                count=len(images),
                needed=count,
            )
        if tuple(images.shape[1:]) != self.shape:
            generated, real = ("x".join(map(str, s)) for s in (images.shape[1:], self.shape))
            raise InputError(
                f"generated images are {generated}, but real images are {real} (channels, height, "
                "width)",
                hint="use real images with the cascade's size and channels",
                code="input-images-unlike",
                generated=generated,
                real=real,
            )
        return to_uint8(images)
