"""Keyed randomness: every draw depends only on a key, never on earlier draws.

A resumed run repeats the draws of the stopped run. The number of processes does not change the
draws of a training. The batch size does not change the sampled images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Draw", "ImageDraw", "derive_seed", "seed_global"]


def derive_seed(*key: str | int) -> int:
    """A 63-bit seed from a key, the same on every machine."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in key)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def seed_global(seed: int, device: torch.device | str = "cpu") -> None:
    """Seed the default generators of the CPU and the device, used by dropout and initialisation.

    ``torch.manual_seed`` seeds every backend. For an unused backend it queues the call with a
    stack trace, which costs half a millisecond and never frees the memory.
    """
    torch.default_generator.manual_seed(seed)
    device = torch.device(device)
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


class Draw:
    """Random numbers for one training step of one stage.

    Numbers are drawn for the global batch and sliced to this process's share. The first dimension
    of every shape is the local batch size.

    Args:
        key: what the numbers depend on, e.g. ``(seed, phase, step, stage)``.
        device: the device of the tensors.
        rank: the rank of this process.
        world: the number of processes that share the global batch.
    """

    def __init__(
        self, *key: str | int, device: torch.device | str = "cpu", rank: int = 0, world: int = 1
    ) -> None:
        self.device = torch.device(device)
        # The meta device has no generators. Its draws hold no numbers, so any generator will do.
        source = "cpu" if self.device.type == "meta" else self.device
        self.generator = torch.Generator(source)
        self.generator.manual_seed(derive_seed(*key))
        self.rank = rank
        self.world = world

    def randn(self, *shape: int) -> Tensor:
        """Standard normal numbers, float32."""
        if self.device.type == "meta":
            return torch.empty(shape, device="meta")
        return self._local(
            torch.randn(self._global(shape), generator=self.generator, device=self.device), shape
        )

    def rand(self, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1), float32."""
        if self.device.type == "meta":
            return torch.empty(shape, device="meta")
        return self._local(
            torch.rand(self._global(shape), generator=self.generator, device=self.device), shape
        )

    def randint(self, low: int, high: int, *shape: int) -> Tensor:
        """Integers in [low, high), int64."""
        if self.device.type == "meta":
            return torch.empty(shape, device="meta", dtype=torch.int64)
        numbers = torch.randint(
            low, high, self._global(shape), generator=self.generator, device=self.device
        )
        return self._local(numbers, shape)

    def _global(self, shape: Sequence[int]) -> tuple[int, ...]:
        return (shape[0] * self.world, *shape[1:])

    def _local(self, numbers: Tensor, shape: Sequence[int]) -> Tensor:
        if self.world == 1:
            return numbers
        return numbers[self.rank * shape[0] : (self.rank + 1) * shape[0]]


class ImageDraw:
    """Random numbers for a sampling request: one stream for each image.

    The numbers of image ``i`` depend only on (seed, stage, i), so an image is the same in any
    batch.

    Args:
        seed: the request's seed.
        stage: the name of the stage.
        first: the number of the batch's first image.
        count: number of images in the batch.
        device: the device of the tensors.
    """

    def __init__(
        self,
        seed: int,
        stage: str,
        first: int,
        count: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        source = "cpu" if self.device.type == "meta" else self.device
        self.generators = []
        for index in range(first, first + count):
            generator = torch.Generator(source)
            generator.manual_seed(derive_seed(seed, "sample", stage, index))
            self.generators.append(generator)

    def randn(self, *shape: int) -> Tensor:
        """Standard normal numbers, float32; the first dimension is the number of images."""
        if self.device.type == "meta":
            return torch.empty(shape, device="meta")
        rows = torch.empty(shape, device=self.device)
        for row, generator in zip(rows, self.generators, strict=True):
            row.normal_(generator=generator)
        return rows

    def rand(self, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1), float32; the first dimension is the number of images."""
        if self.device.type == "meta":
            return torch.empty(shape, device="meta")
        rows = torch.empty(shape, device=self.device)
        for row, generator in zip(rows, self.generators, strict=True):
            row.uniform_(generator=generator)
        return rows

    def randint(self, low: int, high: int, *shape: int) -> Tensor:
        """Integers in [low, high), int64; the first dimension is the number of images."""
        if self.device.type == "meta":
            return torch.empty(shape, device="meta", dtype=torch.int64)
        rows = torch.empty(shape, device=self.device, dtype=torch.int64)
        for row, generator in zip(rows, self.generators, strict=True):
            row.random_(low, high, generator=generator)
        return rows
