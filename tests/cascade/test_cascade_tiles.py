"""Tiles of large pictures: places, weights and noise."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cascadezoo.cascade.draws import BLOCK, MixedDraw, TileDraw
from cascadezoo.cascade.tiles import blend_weights, tile_starts
from cascadezoo.util.rng import ImageDraw


@settings(deadline=None)
@given(st.integers(1, 400), st.integers(2, 64), st.data(), st.integers(1, 4))
def test_tiles_cover_a_side_and_their_weights_add_up(length, tile, data, factor) -> None:
    overlap = data.draw(st.integers(1, max(tile // 2, 1)))
    starts = tile_starts(length, tile, overlap)
    padded = max(length, tile)
    assert starts[0] == 0
    assert starts[-1] == padded - tile
    assert all(overlap <= a + tile - b < tile for a, b in itertools.pairwise(starts))
    total = torch.zeros(padded * factor)
    for start, weight in zip(starts, blend_weights(starts, tile, factor), strict=True):
        assert float(weight.min()) >= 0
        total[start * factor : (start + tile) * factor] += weight
    assert (total - 1).abs().max() < 1e-5


def test_overlapping_tiles_share_their_noise() -> None:
    places = [(0, 0), (5, 40), (30, 70)]
    tiles = TileDraw(3, "up", 0, places, (48, 48)).randn(3, 2, 96, 96)
    whole = TileDraw(3, "up", 0, [(0, 0)], (160, 160)).randn(1, 2, 320, 320)[0]
    for tile, (top, left) in zip(tiles, places, strict=True):
        part = whole[:, 2 * top : 2 * top + 96, 2 * left : 2 * left + 96]
        assert torch.equal(tile, part)
    assert abs(float(whole.std()) - 1) < 0.02
    # Blocks differ from each other, and so do pictures, seeds and draws.
    assert not torch.equal(whole[:, :BLOCK, :BLOCK], whole[:, BLOCK : 2 * BLOCK, :BLOCK])
    for key in [(4, "up", 0), (3, "refine", 0), (3, "up", 1)]:
        assert not torch.equal(TileDraw(*key, places, (48, 48)).randn(3, 2, 96, 96), tiles)
    draw = TileDraw(3, "up", 0, places, (48, 48))
    assert not torch.equal(draw.randn(3, 2, 96, 96), draw.randn(3, 2, 96, 96))


def test_numbers_that_are_no_image_are_the_same_for_all_tiles() -> None:
    draw = TileDraw(3, "up", 0, [(0, 0), (5, 4)], (8, 8))
    for numbers in (draw.rand(2, 3), draw.randn(2, 3), draw.randint(0, 100, 2, 3)):
        assert torch.equal(numbers[0], numbers[1])


@pytest.mark.parametrize("method", ["randn", "rand"])
def test_mixed_draws_end_at_the_draws_of_both_seeds(method: str) -> None:
    mixed = MixedDraw((1, 2), "coarse", 5, torch.tensor([0.0, 0.5, 1.0]))
    ends = [ImageDraw(seed, "coarse", 5, 1) for seed in (1, 2)]
    for _ in range(2):  # also later draws
        rows = getattr(mixed, method)(3, 4, 4)
        first, second = (getattr(end, method)(1, 4, 4)[0] for end in ends)
        assert torch.equal(rows[0], first)
        assert torch.equal(rows[2], second)
    assert mixed.randint(0, 9, 3).shape == (3,)
