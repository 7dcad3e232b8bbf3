"""Sampling by all processes: each draws other batches of the same images."""

from __future__ import annotations

from types import TracebackType
from typing import Self, TypeAlias

from torch import Tensor

from cascadezoo.errors import CascadezooError
from cascadezoo.evaluate.samples import SampleFn
from cascadezoo.util.processes import (
    broadcast_value,
    gather_to_first,
    process_count,
    process_rank,
)

__all__ = ["SharedSampling"]

_Batch: TypeAlias = tuple[int, int]


class SharedSampling:
    """A sampler for the first process that lets all processes draw.

    Batches are drawn as one process would draw them, so images and figures are equal. A request for
    a batch lets the others draw the batches that follow it. The other processes call :meth:`serve`
    until the first one leaves the block.

    Args:
        sample: draws a batch in this process.
        total: number of images that will be requested.
        batch_size: number of images per batch.
    """

    def __init__(self, sample: SampleFn, total: int, batch_size: int) -> None:
        self.sample = sample
        self.total = total
        self.batch_size = batch_size
        self._ready: dict[_Batch, Tensor] = {}

    def __call__(self, first: int, count: int) -> Tensor:
        """Images ``first`` to ``first + count - 1``; see :data:`SampleFn`.

        Raises:
            CascadezooError: that of any process.
        """
        if process_count() < 2:
            return self.sample(first, count)
        if (first, count) not in self._ready:
            starts = range(first + count, self.total, self.batch_size)[: process_count() - 1]
            batches = [(first, count)]
            batches += [(start, min(self.batch_size, self.total - start)) for start in starts]
            self._draw(broadcast_value(batches))
        return self._ready.pop((first, count))

    def _draw(self, batches: list[_Batch]) -> None:
        own = _part(self.sample, batches)
        # The first process keeps its own images on its device.
        parts = [own, *gather_to_first(None)[1:]]
        for part in parts:
            if isinstance(part, BaseException):
                raise part
        self._ready = {
            batch: part.to(own.device)
            for batch, part in zip(batches, parts, strict=False)
            if isinstance(part, Tensor) and isinstance(own, Tensor)
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the serving of the other processes."""
        if process_count() > 1:
            broadcast_value(None)

    @staticmethod
    def serve(sample: SampleFn) -> None:
        """Draw what the first process requests, in the other processes.

        The first process raises the errors of all.
        """
        while True:
            batches: list[_Batch] | None = broadcast_value(None)
            if batches is None:
                return
            own = _part(sample, batches)
            gather_to_first(own.cpu() if isinstance(own, Tensor) else own)


def _part(sample: SampleFn, batches: list[_Batch]) -> Tensor | BaseException | None:
    """This process's batch; its error, which the first process raises; None without a batch."""
    if process_rank() >= len(batches):
        return None
    try:
        return sample(*batches[process_rank()])
    except (CascadezooError, RuntimeError) as error:
        return error
