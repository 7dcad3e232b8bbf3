"""Random numbers of pictures larger than a stage's image, and of images between two seeds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cascadezoo.diffusion.editing import slerp
from cascadezoo.util.rng import ImageDraw, derive_seed

__all__ = ["MixedDraw", "TileDraw"]

BLOCK = 64
"""Height and width of the blocks of noise of a large picture."""


class MixedDraw(ImageDraw):
    """Random numbers between those of image ``first`` for two seeds.

    Normal numbers are mixed on the sphere. Uniform numbers and integers are those of the nearer
    seed.

    Args:
        seeds: the two seeds.
        stage: the name of the stage.
        first: the number of the image, the same for all rows.
        mix: the share of the second seed for each row, in [0, 1].
        device: the device of the tensors.
    """

    def __init__(
        self,
        seeds: tuple[int, int],
        stage: str,
        first: int,
        mix: Tensor,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(seeds[0], stage, first, 0, device)
        self.mix = mix
        self.ends = [
            [ImageDraw(seed, stage, first, 1, device) for _ in range(len(mix))] for seed in seeds
        ]
        # A stage that draws from the generators itself gets the numbers of the nearer seed.
        nearer = [int(share >= 0.5) for share in mix.tolist()]
        self.generators = [self.ends[end][i].generators[0] for i, end in enumerate(nearer)]

    def randn(self, *shape: int) -> Tensor:
        """Standard normal numbers, float32."""
        first, second = (torch.cat([d.randn(1, *shape[1:]) for d in end]) for end in self.ends)
        return slerp(first, second, self.mix.to(self.device))

    def rand(self, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1), float32."""
        first, second = (torch.cat([d.rand(1, *shape[1:]) for d in end]) for end in self.ends)
        return self._nearer(first, second)

    def randint(self, low: int, high: int, *shape: int) -> Tensor:
        """Integers in [low, high), int64."""
        first, second = (
            torch.cat([d.randint(low, high, 1, *shape[1:]) for d in end]) for end in self.ends
        )
        return self._nearer(first, second)

    def _nearer(self, first: Tensor, second: Tensor) -> Tensor:
        near = self.mix.to(self.device) < 0.5
        return torch.where(near.view(-1, *[1] * (first.ndim - 1)), first, second)


class TileDraw(ImageDraw):
    """Random numbers for tiles of one large picture: tiles share the noise where they overlap.

    The noise of the picture consists of blocks, each with its own key, so a tile draws only the
    blocks that it touches. Numbers without the shape of an image are the same for all tiles.

    Args:
        seed: the request's seed.
        stage: the name of the stage.
        number: the number of the picture.
        corners: the row and column of each tile's corner in the upstream picture.
        tile: height and width of the tiles in the upstream picture.
        device: the device of the tensors.
    """

    def __init__(
        self,
        seed: int,
        stage: str,
        number: int,
        corners: Sequence[tuple[int, int]],
        tile: tuple[int, int],
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(seed, stage, number, 1, device)
        # A stage that draws from the generators itself needs one for each tile.
        self.generators = [ImageDraw(seed, stage, number, 1, device).generators[0] for _ in corners]
        self.key = (seed, "sample", stage, number, "tiles")
        self.corners = list(corners)
        self.tile = tile
        self.draws = 0

    def randn(self, *shape: int) -> Tensor:
        """Standard normal numbers, float32; the first dimension is the number of tiles."""
        self.draws += 1
        factor = shape[-1] // self.tile[1] if len(shape) == 4 else 0
        if factor < 1 or shape[-2:] != (factor * self.tile[0], factor * self.tile[1]):
            return super().randn(*shape)
        rows = torch.empty(shape, device=self.device)
        for row, (top, left) in zip(rows, self.corners, strict=True):
            self._fill(row, top * factor, left * factor)
        return rows

    def _fill(self, row: Tensor, top: int, left: int) -> None:
        """Write the noise at a place of the picture into a tile [C, H, W]."""
        channels, height, width = row.shape
        generator = torch.Generator(self.device)
        for y in range(top // BLOCK, (top + height - 1) // BLOCK + 1):
            for x in range(left // BLOCK, (left + width - 1) // BLOCK + 1):
                generator.manual_seed(derive_seed(*self.key, self.draws, y, x))
                block = torch.randn(channels, BLOCK, BLOCK, generator=generator, device=self.device)
                rows = slice(max(top, y * BLOCK), min(top + height, (y + 1) * BLOCK))
                columns = slice(max(left, x * BLOCK), min(left + width, (x + 1) * BLOCK))
                row[
                    :,
                    rows.start - top : rows.stop - top,
                    columns.start - left : columns.stop - left,
                ] = block[
                    :,
                    rows.start - y * BLOCK : rows.stop - y * BLOCK,
                    columns.start - x * BLOCK : columns.stop - x * BLOCK,
                ]
