"""The order of a streamed dataset: shards are shuffled, then images within a buffer.

An order is computed from numbers alone, without reading data. It depends only on its key, so every
process and every worker knows which image is where in which batch.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from cascadezoo.util.rng import derive_seed

__all__ = ["REAL_ORDER", "block_order", "real_order", "shard_order", "stream_order"]

REAL_ORDER = "real images"
"""The key of the order in which evaluation chooses real images."""


def stream_order(
    count: int, shards: NDArray[np.int64] | None, buffer: int, *key: str | int
) -> NDArray[np.int64]:
    """The order in which an epoch visits the images.

    Shards come in random order. The sequence of their images is cut into blocks of ``buffer``
    images, and each block is shuffled. So reads are close together, and an image moves by at most
    ``buffer`` places within the shuffled shards. Without shards, or with a buffer of at least
    ``count``, it is one permutation of all images: that of the resident loader.

    Args:
        count: number of images.
        shards: number of images of each shard, with the sum ``count``; None without shards.
        buffer: number of images of a block.
        key: what the order depends on.

    Returns:
        int64 [count]; each of ``range(count)`` once.
    """
    generator = torch.Generator().manual_seed(derive_seed(*key))
    if shards is None or buffer >= count:
        order: NDArray[np.int64] = torch.randperm(count, generator=generator).numpy()
        return order
    starts = np.cumsum(shards) - shards
    shuffled = torch.randperm(len(shards), generator=generator).numpy()
    lengths = shards[shuffled]
    # Row i of the sequence is the start of its shard plus its place within the shard.
    within = np.arange(count) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    rows = np.repeat(starts[shuffled], lengths) + within
    draws = torch.rand(count, generator=generator, dtype=torch.float64).numpy()
    mixed: NDArray[np.int64] = rows[np.lexsort((draws, np.arange(count) // buffer))]
    return mixed


def shard_order(shards: int, *key: str | int) -> list[int]:
    """The order of the shards of a source that can only be read from the start."""
    generator = torch.Generator().manual_seed(derive_seed(*key, "shards"))
    order: list[int] = torch.randperm(shards, generator=generator).tolist()
    return order


def block_order(length: int, block: int, *key: str | int) -> list[int]:
    """The order within a block of a source that can only be read from the start."""
    generator = torch.Generator().manual_seed(derive_seed(*key, "block", block))
    order: list[int] = torch.randperm(length, generator=generator).tolist()
    return order


def real_order(count: int) -> NDArray[np.int64]:
    """The order in which evaluation chooses real images, int64 [count]; the same for every seed."""
    return stream_order(count, None, count, REAL_ORDER)
