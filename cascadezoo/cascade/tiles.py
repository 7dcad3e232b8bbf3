"""Tiles of a large picture: their places, and weights that blend them."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

__all__ = ["blend_weights", "tile_starts"]


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """The first pixel of each tile along one side, evenly spaced, from 0 to ``length - tile``.

    Args:
        length: of the side in pixels.
        tile: length of a tile; a shorter side has one tile.
        overlap: smallest number of pixels that neighbours share, below ``tile``.
    """
    if length <= tile:
        return [0]
    count = math.ceil((length - overlap) / (tile - overlap))
    return [round(number * (length - tile) / (count - 1)) for number in range(count)]


def blend_weights(starts: list[int], tile: int, factor: int) -> list[Tensor]:
    """The weights of tiles along one side of the enlarged picture; they add up to 1 at each pixel.

    The weight of a tile rises linearly over what it shares with its neighbour.

    Args:
        starts: the result of :func:`tile_starts`.
        tile: length of a tile in the upstream picture.
        factor: the enlargement.

    Returns:
        For each tile, [tile * factor] in [0, 1].
    """
    rows = [torch.ones(tile * factor) for _ in starts]
    for number, (start, after) in enumerate(pairwise(starts)):
        shared = (start + tile - after) * factor
        ramp = (torch.arange(shared) + 0.5) / shared
        # More than two tiles meet where an end is moved inwards, so weights are multiplied.
        rows[number][-shared:] *= 1 - ramp
        rows[number + 1][:shared] *= ramp
    total = torch.zeros((starts[-1] + tile) * factor)
    for start, row in zip(starts, rows, strict=True):
        total[start * factor : (start + tile) * factor] += row
    return [
        row / total[start * factor : (start + tile) * factor]
        for start, row in zip(starts, rows, strict=True)
    ]
