"""shapes: deterministic by index, complete, anti-aliased, with the configured colours and classes."""

import time

import numpy as np
import pytest
from errors_help import raises
from hypothesis import given, settings
from hypothesis import strategies as st

from cascadezoo.data.shapes import CLASSES, ShapesConfig, load
from cascadezoo.data.shapes_images import PALETTE
from cascadezoo.errors import ResourceError

LOOKS = [
    {},
    {"background": "palette"},
    {"background": "gradient", "colors": "free", "rotation": 180.0, "classes": 12},
]


def test_default_splits():
    config = ShapesConfig()
    train, test = load(config, "train"), load(config, "test")
    assert train.images.shape == (8000, 3, 32, 32)
    assert test.images.shape == (2000, 3, 32, 32)
    assert train.images.dtype == np.uint8
    assert np.bincount(train.labels).tolist() == [1000] * 8
    info = config.info()
    assert (info.size, info.channels, info.num_classes) == (32, 3, 8)
    assert info.class_names == CLASSES[:8]


def test_golden_digest():
    """Pinned: a change of these bytes changes what published models were trained on."""
    config = ShapesConfig(count=64, test_count=16)
    digests = [load(config, "train").digest[:16], load(config, "test").digest[:16]]
    assert digests == GOLDEN["plain"]
    hard = ShapesConfig(
        count=64, size=48, seed=7, classes=12, background="gradient", colors="free", rotation=180.0
    )
    assert load(hard, "train").digest[:16] == GOLDEN["hard"]


@settings(max_examples=25, deadline=None)
@given(
    look=st.sampled_from(LOOKS),
    size=st.sampled_from([8, 16, 33]),
    seed=st.integers(0, 2**63 - 1),
    few=st.integers(1, 40),
    more=st.integers(0, 300),
    split=st.sampled_from(["train", "test"]),
)
def test_an_image_depends_on_its_index_alone(look, size, seed, few, more, split):
    def images(count):
        config = ShapesConfig(size=size, seed=seed, count=count, test_count=count, **look)
        return load(config, split)

    small, large = images(few), images(few + more)
    assert (large.images[:few] == small.images).all()
    assert (large.labels[:few] == small.labels).all()


def test_chunks_have_no_effect():
    """More images than are drawn at once equal those of a smaller dataset."""
    config = ShapesConfig(size=256, count=67)  # 64 images a chunk
    whole = load(config, "train").images
    assert len({image.tobytes() for image in whole}) == 67
    half = load(config.model_copy(update={"count": 65}), "train").images
    assert (whole[:65] == half).all()


def test_splits_and_seeds_differ():
    base = load(ShapesConfig(count=200, test_count=200), "train").images.reshape(200, -1)
    for other in (
        load(ShapesConfig(count=200, test_count=200), "test"),
        load(ShapesConfig(count=200, seed=1), "train"),
    ):
        pixels = other.images.reshape(200, -1)
        assert not (base[:, None] == pixels[None]).all(-1).any()


def test_edges_are_antialiased():
    """Between the shape's colour and white lie blends of the two, on the outline only."""
    images = load(ShapesConfig(count=80), "train").images.astype(np.float64)
    for image in images:
        pixels = image.reshape(3, -1).T
        # Each pixel is white + cover * (color - white); the cover is the same in all channels.
        color = min(PALETTE, key=lambda c: np.abs(pixels - c).sum(1).min())
        channel = int(np.argmin(color))
        cover = (255 - pixels[:, channel]) / (255 - color[channel])
        assert np.abs(255 + cover[:, None] * (color - 255) - pixels).max() <= 1.0
        blended = ((cover > 0.05) & (cover < 0.95)).mean()
        assert 0.02 < blended < 0.30
        assert (cover == 1).mean() > 0.02
        assert (cover == 0).mean() > 0.25


def test_covers_the_true_area():
    """A disc's summed cover is the area of the disc, to a part in a hundred."""
    config = ShapesConfig(count=50, classes=1, size=32, min_width=0.6, max_width=0.6)
    images = load(config, "train").images.astype(np.float64)
    darkest = images.reshape(50, 3, -1).min(2)
    channel = darkest.argmin(1)
    rows = np.arange(50)
    cover = (255 - images[rows, channel]) / (255 - darkest[rows, channel])[:, None, None]
    area = np.pi * (0.92 * 0.5 * 32 * 0.6) ** 2
    assert np.abs(cover.sum((1, 2)) / area - 1).max() < 0.01


@pytest.mark.parametrize("rotation", [0.0, 30.0, 180.0])
@pytest.mark.parametrize("width", [(0.45, 0.85), (0.95, 0.95)])
def test_no_shape_is_cut_off(rotation, width):
    low, high = width
    config = ShapesConfig(
        size=128, count=600, classes=12, rotation=rotation, min_width=low, max_width=high
    )
    images = load(config, "train").images
    border = np.stack([images[..., 0, :], images[..., -1, :], images[..., 0], images[..., -1]])
    assert (border == 255).all()
    rows = (images.min(1) < 255).any(2).sum(1)
    columns = (images.min(1) < 255).any(1).sum(1)
    assert np.maximum(rows, columns).min() > 128 * low * 0.65


def test_the_same_picture_at_every_size():
    small = load(ShapesConfig(count=64, size=32), "train").images.astype(np.float64)
    large = load(ShapesConfig(count=64, size=128), "train").images.astype(np.float64)
    reduced = large.reshape(64, 3, 32, 4, 32, 4).mean((3, 5))
    assert np.abs(reduced - small).mean() < 1.5
    assert np.percentile(np.abs(reduced - small), 99) < 32


def test_all_palette_colors_are_used_evenly():
    images = load(ShapesConfig(count=4000), "train").images
    pixels = images.reshape(4000, 3, -1).transpose(0, 2, 1).astype(np.int64)
    hits = (pixels[:, None] == PALETTE.astype(np.int64)[None, :, None]).all(-1).any(-1)
    assert (hits.sum(1) == 1).mean() > 0.99
    assert np.abs(hits.mean(0) - 1 / 8).max() < 0.025


def test_backgrounds():
    white = load(ShapesConfig(count=300), "train").images
    tint = load(ShapesConfig(count=300, background="palette"), "train").images
    slope = load(ShapesConfig(count=300, background="gradient"), "train").images
    corners = [image[:, :, [0, 0, -1, -1], [0, -1, 0, -1]].astype(int) for image in (white, tint)]
    assert np.median(corners[0]) == 255
    spread = corners[1].max(2) - corners[1].min(2)
    assert np.median(spread) == 0  # one tint all over
    assert len(np.unique(np.median(corners[1], axis=2), axis=0)) >= 8
    slopes = slope[:, :, 0, 0].astype(int) - slope[:, :, -1, -1]
    assert (np.abs(slopes).max(1) > 4).mean() > 0.5
    assert tint.min(1).max((1, 2)).min() > 150  # backgrounds stay pale


def test_classes_are_distinguishable_at_16_pixels():
    """A linear classifier of the cover of 16x16 test images gets most of them right."""
    config = ShapesConfig(size=16, count=4000, test_count=800, rotation=20.0)

    def cover(split):
        data = load(config, split)
        ink = 255 - data.images.min(1).astype(np.float64)
        ink /= ink.max((1, 2), keepdims=True)
        centred = np.zeros_like(ink)
        grid = np.arange(16)
        for row, image in enumerate(ink):
            y = (image.sum(1) @ grid) / image.sum()
            x = (image.sum(0) @ grid) / image.sum()
            centred[row] = np.roll(image, (round(7.5 - y), round(7.5 - x)), (0, 1))
        flat = centred.reshape(len(ink), -1)
        return np.concatenate([flat, flat**2, np.ones((len(flat), 1))], 1), data.labels

    x, y = cover("train")
    weights = np.linalg.solve(x.T @ x + np.eye(x.shape[1]), x.T @ np.eye(8)[y])
    x, y = cover("test")
    assert ((x @ weights).argmax(1) == y).mean() > 0.85


def test_speed():
    """8,000 images well under 3 s on one core; the bound is loose for a busy machine."""
    start = time.process_time()
    load(ShapesConfig(), "train")
    assert time.process_time() - start < 3.0


def test_data_larger_than_the_memory_are_rejected():
    with raises(ResourceError, "resources-memory", name="10,000,000 shapes of 4096x4096"):
        load(ShapesConfig(size=4096, count=10_000_000), "train")


GOLDEN = {"plain": ["9769794ba68b0d68", "783d050df46c0059"], "hard": "c36c496f897de413"}
