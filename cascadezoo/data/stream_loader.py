"""Training batches of a dataset that stays encoded, decoded by worker processes in advance."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from cascadezoo.data.base import ImageData
from cascadezoo.data.block_reader import BlockReader
from cascadezoo.data.decoder import Decoded, Decoder
from cascadezoo.data.loader import BatchLoader, DeviceLoader, to_device, to_floats
from cascadezoo.data.source import SequentialSource
from cascadezoo.data.stream_order import stream_order
from cascadezoo.data.streamed import StreamedData
from cascadezoo.errors import CascadezooError, DataError

__all__ = ["AHEAD", "StreamLoader", "decoding_workers", "make_loader"]

_MOST_WORKERS = 8
AHEAD = 2
"""Batches that each worker decodes in advance."""


def decoding_workers(requested: int | None) -> int:
    """The number of decoding processes of each training process.

    Args:
        requested: the number of the spec; None is one less than this process's share of the cores,
            from 1 to 8.
    """
    if requested is not None:
        return requested
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    share = (cores or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(_MOST_WORKERS, max(1, share - 1))


def make_loader(
    data: ImageData,
    *,
    batch_size: int,
    seed: int,
    flip: bool = False,
    device: torch.device | str = "cpu",
    rank: int = 0,
    world: int = 1,
) -> BatchLoader:
    """The loader of training batches for resident or streamed data; see :class:`BatchLoader`."""
    options: dict[str, Any] = {
        "batch_size": batch_size,
        "seed": seed,
        "flip": flip,
        "device": device,
        "rank": rank,
        "world": world,
    }
    if isinstance(data, StreamedData):
        return StreamLoader(data, **options)
    return DeviceLoader(data, **options)


class StreamLoader(BatchLoader):
    """Training batches: decoded in advance, mirrored and scaled on the device.

    A batch depends on (seed, epoch, index) and the buffer alone: each process computes the order of
    an epoch and decodes its own share of the global batch. The number of workers and of processes
    changes no image, and a training resumes at any batch without reading those before, except from
    a sequential source.

    Args:
        data: the images.
        batch_size: images per step, over all processes.
        seed: determines order and mirroring.
        flip: mirror each image left to right with probability 1/2.
        device: device of the batches.
        rank: this process's number.
        world: number of processes that share a batch.
        channels_last: return images in the memory format ``torch.channels_last``.

    Raises:
        DataError: ``batch_size`` is not positive or cannot be split evenly.
    """

    def __init__(
        self,
        data: StreamedData,
        *,
        batch_size: int,
        seed: int,
        flip: bool = False,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world: int = 1,
        channels_last: bool = False,
    ) -> None:
        super().__init__(
            len(data),
            batch_size=batch_size,
            seed=seed,
            flip=flip,
            device=device,
            rank=rank,
            world=world,
            channels_last=channels_last,
        )
        self.data = data
        # Shared by all copies: only one reads at a time.
        self._feed = _Feed(data, decoding_workers(data.settings.workers), self.device)

    @property
    def waited(self) -> float:
        """Seconds that the training waited for decoded batches."""
        return self._feed.waited

    def batch(self, epoch: int, index: int) -> tuple[Tensor, Tensor | None]:
        """This process's share of a batch; see :meth:`BatchLoader.batch`.

        Batches in their order are decoded in advance. Another batch restarts the workers.

        Raises:
            CascadezooError: an image cannot be read, or more are bad than ``max_bad`` allows.
            IndexError: the epoch has no such batch.
        """
        self._check(epoch, index)
        decoded = self._feed.next(self._plan(epoch, index))
        images = to_device(decoded.images, self.device)
        if self.flip:
            images = self._mirror(images, epoch, index)
        labels = None if decoded.labels is None else to_device(decoded.labels, self.device)
        return to_floats(images, memory_format=self._format), labels

    def close(self) -> None:
        """End the workers. A later batch starts them again."""
        self._feed.close()

    def _plan(self, epoch: int, index: int) -> _Plan:
        settings = self.data.settings
        return _Plan(
            epoch,
            index,
            self._count,
            self.batch_size,
            self.local_batch_size,
            self._rank,
            self._seed,
            settings.buffer,
        )


@dataclass(frozen=True, slots=True)
class _Plan:
    """Which images belong to which batch, from a batch on."""

    epoch: int
    index: int
    count: int
    batch_size: int
    local: int
    rank: int
    seed: int
    buffer: int

    @property
    def steps(self) -> int:
        return max(1, self.count // self.batch_size)

    def after(self) -> _Plan:
        """The plan from the next batch on."""
        last = self.index + 1 == self.steps
        epoch, index = (self.epoch + 1, 0) if last else (self.epoch, self.index + 1)
        return _Plan(epoch, index, *self._rest())

    def _rest(self) -> tuple[int, int, int, int, int, int]:
        return self.count, self.batch_size, self.local, self.rank, self.seed, self.buffer

    def places(self) -> Iterator[tuple[int, list[int]]]:
        """The epoch and the places in its order of each batch of this process, without end."""
        epoch, index = self.epoch, self.index
        while True:
            while index < self.steps:
                start = index * self.batch_size + self.rank * self.local
                # Places repeat only if there are fewer images than a batch has.
                yield epoch, [place % self.count for place in range(start, start + self.local)]
                index += 1
            epoch, index = epoch + 1, 0


class _Rows(Sampler[list[int]]):
    """The rows of each batch, of a source that can be read in any order."""

    def __init__(self, plan: _Plan, shards: Any) -> None:
        self._plan = plan
        self._shards = shards

    def __iter__(self) -> Iterator[list[int]]:
        plan, now = self._plan, -1
        for epoch, places in plan.places():
            if epoch != now:
                key = (plan.seed, "order", epoch)
                order, now = stream_order(plan.count, self._shards, plan.buffer, *key), epoch
            yield order[places].tolist()


class _Decoding(Dataset[Decoded]):
    """Decodes batches by their rows."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder

    def __getitem__(self, rows: Any) -> Decoded:
        return self._decoder.rows(rows)


class _Sequence(IterableDataset[Decoded]):
    """Decodes batches in the order of a sequential source, by threads."""

    def __init__(self, decoder: Decoder, plan: _Plan, threads: int) -> None:
        self._decoder = decoder
        self._plan = plan
        self._threads = threads

    def __iter__(self) -> Iterator[Decoded]:
        plan, now = self._plan, self._plan.epoch
        with ThreadPoolExecutor(max(1, self._threads)) as pool:
            reader = BlockReader(self._decoder, plan.buffer, plan.seed, "order", now)
            for epoch, places in plan.places():
                if epoch != now:
                    reader.close()
                    reader = BlockReader(self._decoder, plan.buffer, plan.seed, "order", epoch)
                    now = epoch
                try:
                    yield reader.read(places, pool)
                except CascadezooError as error:
                    yield Decoded(torch.empty(0), error=error)


class _Feed:
    """The running workers, and the batch that they deliver next."""

    def __init__(self, data: StreamedData, workers: int, device: torch.device) -> None:
        self._data = data
        self._workers = workers
        self._pin = device.type == "cuda"
        self._next: _Plan | None = None
        self._batches: Iterator[Decoded] | None = None
        self.waited = 0.0

    def next(self, plan: _Plan) -> Decoded:
        """The first batch of a plan."""
        began = time.perf_counter()
        if plan != self._next or self._batches is None:
            self.close()
            self._batches = self._start(plan)
        try:
            decoded = next(self._batches)
        except (RuntimeError, ConnectionError, EOFError) as error:
            # Without its process, the memory of a batch that is already queued is out of reach.
            if not isinstance(error, RuntimeError) and not self._has_dead_worker():
                raise
            self.close()
            raise DataError(
                f"{self._data.source.name}: a process that decodes images has ended: "
                f"{(str(error).splitlines() or [''])[0]}",
                hint="the machine may lack memory: lower data.stream.workers, or set it to 0",
                code="data-worker-ended",
            ) from error
        self._next = plan.after()
        self.waited += time.perf_counter() - began
        try:
            return self._data.accept(decoded)
        except CascadezooError:
            self.close()
            raise

    def close(self) -> None:
        self._batches = self._next = None

    def _has_dead_worker(self) -> bool:
        sentinels = [worker.sentinel for worker in getattr(self._batches, "_workers", ())]
        return bool(sentinels and wait(sentinels, timeout=1.0))

    def _start(self, plan: _Plan) -> Iterator[Decoded]:
        source, workers = self._data.source, self._workers
        dataset: Dataset[Decoded]
        sampler = None
        if isinstance(source, SequentialSource):
            dataset = _Sequence(self._data.decoder(workers), plan, workers)
            workers = min(1, workers)
        else:
            dataset = _Decoding(self._data.decoder(workers))
            sampler = _Rows(plan, source.shards)
        loader = DataLoader(
            dataset,
            batch_size=None,
            sampler=sampler,
            num_workers=workers,
            prefetch_factor=AHEAD if workers else None,
            worker_init_fn=_ignore_signals if workers else None,
            pin_memory=self._pin,
        )
        before = signal.getsignal(signal.SIGCHLD)
        batches = iter(loader)
        if threading.current_thread() is threading.main_thread():
            # Torch's handler would raise in the middle of any step; a dead worker is also
            # noticed when its batch is due.
            signal.signal(signal.SIGCHLD, before)
        return batches


def _ignore_signals(worker: int) -> None:
    """Leave signals to the training process, which writes a checkpoint and ends its workers."""
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
