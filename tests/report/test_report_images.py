from __future__ import annotations

import numpy as np
import pytest
import torch
from errors_help import raises
from hypothesis import given, settings
from hypothesis import strategies as st

from cascadezoo.errors import InputError
from cascadezoo.report.images import CELL, MARGIN, grid, samples_picture, stage_strip, to_pil


def noise(count, channels, size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(
        0, 256, (count, channels, size, size), generator=generator, dtype=torch.uint8
    )


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_pictures_keep_the_bytes(channels, mode):
    images = noise(3, channels, 5)
    for picture, image in zip(to_pil(images), images, strict=True):
        assert picture.mode == mode
        pixels = np.asarray(picture).reshape(5, 5, channels)
        assert np.array_equal(pixels, image.permute(1, 2, 0).numpy())


@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(1, 12),
    columns=st.integers(1, 6),
    scale=st.integers(1, 4),
    pad=st.integers(0, 3),
    channels=st.sampled_from([1, 3]),
)
def test_every_pixel_of_a_grid_is_at_its_position(count, columns, scale, pad, channels):
    images = noise(count, channels, 4)
    picture = np.asarray(grid(images, columns, scale, pad))
    wide, cell = min(columns, count), 4 * scale
    rows = -(-count // wide)
    assert picture.shape == (rows * (cell + pad) + pad, wide * (cell + pad) + pad, 3)
    paper = np.ones(picture.shape[:2], dtype=bool)
    for number, image in enumerate(images):
        top = pad + number // wide * (cell + pad)
        left = pad + number % wide * (cell + pad)
        expected = image.permute(1, 2, 0).numpy().repeat(scale, 0).repeat(scale, 1)
        place = (slice(top, top + cell), slice(left, left + cell))
        assert np.array_equal(picture[place], np.broadcast_to(expected, (cell, cell, 3)))
        paper[place] = False
    assert (picture[paper] == 236).all()


@pytest.mark.parametrize(
    ("count", "size", "shape"),
    [(64, 32, (8 * 98 + 2, 8 * 98 + 2)), (5, 28, (2 * 86 + 2, 3 * 86 + 2)), (4, 256, (518, 518))],
)
def test_a_grid_is_about_square_and_small_images_are_enlarged(count, size, shape):
    assert grid(noise(count, 3, size)).size[::-1] == shape


def test_a_strip_shows_each_stage_at_one_size():
    coarse, fine = noise(3, 3, 8), noise(3, 1, 32, seed=1)
    whole = np.asarray(stage_strip({"generator": coarse, "refiner": fine}))
    picture = whole[12:-12, 12:-12]
    margin = np.ones(whole.shape[:2], dtype=bool)
    margin[12:-12, 12:-12] = False
    assert (whole[margin] == 236).all()
    assert picture.shape[1] == 2 * CELL + 10
    head = picture.shape[0] - 3 * (CELL + 2) + 2
    for row in range(3):
        top = head + row * (CELL + 2)
        left = picture[top : top + CELL, :CELL]
        right = picture[top : top + CELL, CELL + 10 :]
        assert np.array_equal(left[::12, ::12], coarse[row].permute(1, 2, 0).numpy())
        assert np.array_equal(left, left[::12, ::12].repeat(12, 0).repeat(12, 1))
        assert np.array_equal(right[::3, ::3, 0], fine[row, 0].numpy())
    assert picture[:head, :CELL].min() < 100
    assert picture[:head, CELL + 10 :].min() < 100


def test_long_names_stay_in_their_column():
    picture = np.asarray(stage_strip({"x" * 80: noise(1, 3, 16), "b": noise(1, 3, 16)}))
    picture = picture[12:-12, 12:-12]
    head = picture.shape[0] - CELL
    assert (picture[:head, CELL : CELL + 10] == 236).all()


@pytest.mark.parametrize("sizes", [(10, 32), (7, 500), (333, 512)])
def test_sizes_without_a_small_common_multiple(sizes):
    strip = stage_strip({str(size): noise(1, 3, size) for size in sizes})
    assert max(sizes) * 2 <= strip.width - 24 <= 2 * 512 + 10


def test_samples_picture_aligns_grid_and_strip():
    images = noise(16, 3, 32)
    alone = samples_picture(images)
    both = samples_picture(images, {"generator": noise(16, 3, 16), "upsampler": images})
    assert both.height == alone.height
    assert both.width == alone.width + 3 * 10 + 2 * CELL + 10
    pixels = np.asarray(both)
    top = pixels.shape[0] - 12 - (4 * (CELL + 2) - 2)
    first = pixels[top : top + CELL, 12 : 12 + CELL]
    right = pixels[top : top + CELL, pixels.shape[1] - 12 - CELL : pixels.shape[1] - 12]
    assert np.array_equal(first, right)
    assert np.array_equal(first[::3, ::3], images[0].permute(1, 2, 0).numpy())
    assert samples_picture(images, {"generator": images}).size == alone.size


def test_invalid_pictures_are_refused():
    with raises(InputError, "input-no-images"):
        grid(noise(0, 3, 8))
    with raises(InputError, "input-grid-invalid"):
        grid(noise(2, 3, 8), columns=0)
    with raises(InputError, "input-strip-ragged", counts={"a": 2, "b": 3}):
        stage_strip({"a": noise(2, 3, 8), "b": noise(3, 3, 8)})
    with raises(InputError, "input-strip-ragged", counts={}):
        stage_strip({})
    with raises(InputError, "input-images-not-finite"):
        grid(torch.full((1, 3, 8, 8), float("nan")))


def test_a_strip_names_its_rows() -> None:
    stages = {"a": noise(2, 3, 16), "b": noise(2, 3, 32)}
    plain, named = stage_strip(stages), stage_strip(stages, names=["star", "ring"])
    side = named.width - plain.width
    assert side > 20
    assert named.height == plain.height
    # The images are those of the strip without names, moved to the right.
    images = named.crop((MARGIN + side, 0, named.width, named.height))
    assert np.array_equal(np.asarray(images), np.asarray(plain)[:, MARGIN:])
    column = np.asarray(named)[:, MARGIN : MARGIN + side]
    dark = (column.max(axis=2) < 100).any(axis=1)
    assert dark[: plain.height // 2].any()
    assert dark[plain.height // 2 :].any()
    # A long name is cut.
    assert stage_strip(stages, names=["x" * 500, "y"]).width < plain.width + 140
    with raises(InputError, "input-strip-names", names=1, rows=2):
        stage_strip(stages, names=["star"])


def test_a_grid_has_captions_below_its_images() -> None:
    images = noise(3, 3, 32)
    plain, named = grid(images, 2), grid(images, 2, names=["star", "ring", "x" * 300])
    line = (named.height - plain.height) // 2
    assert (named.width, 10 < line < 30) == (plain.width, True)
    before, after = np.asarray(plain), np.asarray(named)
    cell = CELL + 2
    # The images of the second row move down by a line; the captions are between them.
    assert np.array_equal(after[:cell], before[:cell])
    assert np.array_equal(after[cell + line : 2 * cell + line], before[cell : 2 * cell])
    for row in (cell, 2 * cell + line):
        assert (after[row : row + line].max(axis=2) < 100).any()
    assert (after[2 * cell + line :, cell:] == 236).all(), "the empty place has no caption"
    with raises(InputError, "input-grid-names", names=1, images=3):
        grid(images, names=["star"])
