"""Provides batches of a dataset on the device, by epoch and number.

A batch depends on (seed, epoch, index) alone, so a training can resume in the middle of an epoch,
and each of several processes takes its share of the same batch.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cascadezoo.data.base import ImageData
from cascadezoo.data.streamed import StreamedData
from cascadezoo.errors import DataError
from cascadezoo.util.rng import derive_seed

__all__ = ["BatchLoader", "DeviceLoader", "iterate", "to_device", "to_floats"]

_FREE_SHARE = 0.25
"""The share of a GPU's free memory that a dataset may take."""


class BatchLoader(ABC):
    """Training batches by epoch and number.

    An epoch drops the images that do not fill a batch; these change with every epoch. A dataset
    smaller than a batch gives one batch per epoch and repeats its shuffled images until the batch
    is full, so all batches have the same size.

    Args:
        count: number of images.
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
        count: int,
        *,
        batch_size: int,
        seed: int,
        flip: bool,
        device: torch.device | str,
        rank: int,
        world: int,
        channels_last: bool,
    ) -> None:
        self._count, self._world = count, world
        self._split(batch_size)
        if not 0 <= rank < world:
            raise ValueError(f"rank {rank} is not one of {world} processes")
        self.device = torch.device(device)
        self.flip = flip
        self._seed, self._rank = seed, rank
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        self._flip_epoch = -1
        self._picks = torch.empty(0)

    def with_batch_size(self, batch_size: int) -> Self:
        """A loader of the same images, which it shares, with another batch size.

        Args:
            batch_size: images per step, over all processes.

        Raises:
            DataError: as for the loader itself.
        """
        other = copy.copy(self)
        other._split(batch_size)
        other._flip_epoch = -1
        return other

    @abstractmethod
    def batch(self, epoch: int, index: int) -> tuple[Tensor, Tensor | None]:
        """This process's share of a batch.

        Args:
            epoch: from 0. Each change of the epoch costs a new permutation.
            index: the batch's number in the epoch, below ``steps_per_epoch``.

        Returns:
            Images, float32 [batch_size / world, C, H, W] in [-1, 1], and labels, int64, or None.

        Raises:
            IndexError: the epoch has no such batch.
        """

    def _split(self, batch_size: int) -> None:
        world = self._world
        if batch_size < 1 or world < 1 or batch_size % world:
            raise DataError(
                f"{world} processes cannot split a batch of {batch_size} images evenly",
                hint=f"set training.batch_size to a multiple of {world}",
                code="data-batch-uneven",
                batch_size=batch_size,
                world=world,
            )
        self.batch_size = batch_size
        self.local_batch_size = batch_size // world
        self.steps_per_epoch = max(1, self._count // batch_size)

    def _check(self, epoch: int, index: int) -> None:
        if epoch < 0 or not 0 <= index < self.steps_per_epoch:
            raise IndexError(
                f"epoch {epoch} has no batch {index}; an epoch has {self.steps_per_epoch} batches"
            )

    def _share(self, index: int) -> slice:
        """The places of this process's share of a batch in the order of an epoch."""
        start = index * self.batch_size + self._rank * self.local_batch_size
        return slice(start, start + self.local_batch_size)

    def _mirror(self, images: Tensor, epoch: int, index: int) -> Tensor:
        """Mirror each image of a batch with probability 1/2."""
        if epoch != self._flip_epoch:
            total = self.steps_per_epoch * self.batch_size
            generator = torch.Generator().manual_seed(derive_seed(self._seed, "flip", epoch))
            mirrored = torch.rand(total, generator=generator) < 0.5
            # The index of an image in its share of a batch followed by the mirror images.
            picks = torch.arange(total) % self.local_batch_size + self.local_batch_size * mirrored
            self._picks = to_device(picks, self.device)
            self._flip_epoch = epoch
        # Several times faster than torch.where with a mask, and also without synchronisation.
        both = torch.cat([images, images.flip(3)])
        return both.index_select(0, self._picks[self._share(index)])


class DeviceLoader(BatchLoader):
    """Training batches: shuffled, mirrored and scaled on the device.

    The images stay uint8: on the device if they fit, otherwise in host memory, from where only the
    batch is moved. Nothing here waits for the device.

    Args:
        data: the images, of the cascade's size.
        batch_size: images per step, over all processes.
        seed: determines order and mirroring.
        flip: mirror each image left to right with probability 1/2.
        device: device of the batches.
        rank: this process's number.
        world: number of processes that share a batch.
        budget_bytes: maximum size of the images on the device; None is a quarter of a GPU's free
            memory, and no limit elsewhere.
        channels_last: return images in the memory format ``torch.channels_last``.

    Raises:
        DataError: ``batch_size`` is not positive or cannot be split evenly.
    """

    def __init__(
        self,
        data: ImageData,
        *,
        batch_size: int,
        seed: int,
        flip: bool = False,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world: int = 1,
        budget_bytes: int | None = None,
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
        self._images = _tensor(data.images)
        self._labels = None
        if data.labels is not None:
            self._labels = torch.tensor(data.labels, device=self.device)
        self._resident = _fits(data.images.nbytes, self.device, budget_bytes)
        if self._resident:
            self._images = self._images.to(self.device)
        self._epoch = -1
        self._rows = self._host_rows = torch.empty(0)

    def with_batch_size(self, batch_size: int) -> Self:
        """A loader of the same images; see :meth:`BatchLoader.with_batch_size`."""
        other = super().with_batch_size(batch_size)
        other._epoch = -1
        return other

    def batch(self, epoch: int, index: int) -> tuple[Tensor, Tensor | None]:
        """This process's share of a batch; see :meth:`BatchLoader.batch`.

        Raises:
            IndexError: the epoch has no such batch.
        """
        self._check(epoch, index)
        if epoch != self._epoch:
            self._shuffle(epoch)
        share = self._share(index)
        rows = self._rows[share]
        if self._resident:
            images = self._images.index_select(0, rows)
        else:
            images = _gather(self._images, self._host_rows[share], self.device)
        if self.flip:
            images = self._mirror(images, epoch, index)
        labels = None if self._labels is None else self._labels.index_select(0, rows)
        return to_floats(images, memory_format=self._format), labels

    def _shuffle(self, epoch: int) -> None:
        """Draw the order of an epoch on the CPU, so that it is the same for every device."""
        total = self.steps_per_epoch * self.batch_size
        generator = torch.Generator().manual_seed(derive_seed(self._seed, "order", epoch))
        order = torch.randperm(self._count, generator=generator)
        # There are more places than images only if the dataset is smaller than a batch.
        self._host_rows = order[torch.arange(total) % self._count]
        self._rows = to_device(self._host_rows, self.device)
        self._epoch = epoch


def iterate(
    data: ImageData,
    batch_size: int,
    device: torch.device | str = "cpu",
    *,
    scaled: bool = True,
    channels_last: bool = False,
    labels: bool = True,
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """All images once; only one batch at a time is on the device.

    They are in the order of the dataset, and those of a sequential source in the order of its
    stream.

    Args:
        data: the images.
        batch_size: images per batch; the last batch may be smaller.
        device: device of the batches.
        scaled: return float32 in [-1, 1]; False returns the unchanged bytes.
        channels_last: return images in the memory format ``torch.channels_last``.
        labels: also return labels. Those of a sequential source take a pass over it.

    Yields:
        Images, [B, C, H, W], and labels, int64 [B], or None. Bytes on the CPU share the memory of
        the data: do not modify them.

    Raises:
        ValueError: ``batch_size`` is not positive.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, not positive")
    device = torch.device(device)
    form = torch.channels_last if channels_last else torch.contiguous_format
    numbers = None
    if labels and data.labels is not None:
        numbers = torch.tensor(data.labels, device=device)
    streamed = isinstance(data, StreamedData)
    source = torch.empty(0) if streamed else _tensor(data.images)
    for start in range(0, len(data), batch_size):
        rows: slice | Tensor = slice(start, min(start + batch_size, len(data)))
        if isinstance(data, StreamedData):
            chosen = data.reading_order[rows]
            images = to_device(torch.from_numpy(data.images[chosen]), device)
            rows = torch.from_numpy(chosen)
        else:
            images = to_device(source[rows], device)
        images = to_floats(images, memory_format=form) if scaled else images.to(memory_format=form)
        yield images, None if numbers is None else numbers[rows]


def to_floats(
    images: Tensor, *, memory_format: torch.memory_format = torch.contiguous_format
) -> Tensor:
    """Convert bytes to float32 in [-1, 1]: x / 127.5 - 1, exactly -1 for 0 and 1 for 255.

    Args:
        images: uint8, of any shape (four dimensions for ``torch.channels_last``).
        memory_format: the format of the result.
    """
    # GPUs round a division by a constant differently; this gives the same bits everywhere.
    return images.to(torch.float32, memory_format=memory_format).sub_(127.5).mul_(1 / 127.5)


def _tensor(images: NDArray[np.uint8]) -> Tensor:
    # Torch warns about read-only arrays and does not support negative strides.
    return torch.from_numpy(np.require(images, requirements=["C", "W"]))


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Move values to the device without waiting."""
    if device.type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


def _gather(images: Tensor, rows: Tensor, device: torch.device) -> Tensor:
    """Copy rows of images in host memory to the device."""
    pinned = device.type == "cuda"
    batch = torch.empty((len(rows), *images.shape[1:]), dtype=torch.uint8, pin_memory=pinned)
    torch.index_select(images, 0, rows, out=batch)
    return batch.to(device, non_blocking=pinned)


def _fits(size: int, device: torch.device, budget: int | None) -> bool:
    if device.type == "cpu":
        return True
    if budget is not None:
        return size <= budget
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return size <= _FREE_SHARE * free
