"""prepare: exact and anti-aliased conversions, and errors."""

import numpy as np
import pytest
from errors_help import raises
from hypothesis import given
from hypothesis import strategies as st

from cascadezoo.data.base import ImageData
from cascadezoo.data.preparation import prepare, require_labels
from cascadezoo.errors import DataError


def make(count=3, channels=3, high=8, wide=None, seed=0, labels=None):
    shape = (count, channels, high, wide or high)
    images = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return ImageData(images, labels, "train")


@pytest.mark.parametrize("fit", ["resize", "pad", "crop"])
def test_matching_images_are_returned_unchanged(fit):
    data = make()
    assert prepare(data, size=8, channels=3, fit=fit) is data


@given(
    high=st.integers(1, 12),
    wide=st.integers(1, 12),
    more=st.integers(0, 9),
    channels=st.sampled_from([1, 3]),
)
def test_pad_and_crop_are_inverse(high, wide, more, channels):
    size = max(high, wide) + more
    data = make(2, channels, high, wide)
    padded = prepare(data, size=size, channels=channels, fit="pad").images
    assert padded.shape == (2, channels, size, size)
    top, left = (size - high) // 2, (size - wide) // 2
    assert (padded[:, :, top : top + high, left : left + wide] == data.images).all()
    assert padded.sum(dtype=np.int64) == data.images.sum(dtype=np.int64)  # the rest is 0
    if high == wide and more % 2 == 0:
        back = prepare(ImageData(padded, None, "train"), size=high, channels=channels, fit="crop")
        assert (back.images == data.images).all()
        assert back.images.flags.c_contiguous


def test_mnist_28_to_32():
    data = make(2, 1, 28)
    padded = prepare(data, size=32, channels=1, fit="pad").images
    assert (padded[:, :, 2:-2, 2:-2] == data.images).all()
    assert not padded[:, :, :2].any()
    assert not padded[..., -2:].any()


def test_resize_averages_what_it_removes():
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    data = ImageData(np.tile(board, (2, 3, 1, 1)), None, "train")
    small = prepare(data, size=16, channels=3).images
    assert np.abs(small.astype(int) - 127).max() <= 2


@pytest.mark.parametrize("size", [5, 16, 31, 64])
def test_resize_keeps_ramps_and_channels_apart(size):
    ramp = np.linspace(40, 200, 32).round().astype(np.uint8)
    image = np.stack(
        [np.tile(ramp, (32, 1)), np.tile(ramp[:, None], (1, 32)), np.full((32, 32), 9)]
    )
    data = ImageData(image[None].astype(np.uint8), None, "train")
    scaled = prepare(data, size=size, channels=3).images[0].astype(float)
    places = (np.arange(size) + 0.5) / size * 32 - 0.5
    inside = (places > 3) & (places < 28)
    expected = np.interp(places, np.arange(32), np.linspace(40, 200, 32))
    assert np.abs(scaled[0] - expected)[:, inside].max() <= 2
    assert np.abs(scaled[1] - expected[:, None])[inside].max() <= 2
    assert (scaled[2] == 9).all()


def test_grey_to_color_repeats():
    labels = np.arange(3)
    data = make(channels=1, labels=labels)
    out = prepare(data, size=8, channels=3)
    assert (out.images == data.images).all()
    assert out.images.shape == (3, 3, 8, 8)
    assert out.images.flags.writeable
    assert out.labels is labels


def test_color_to_grey_is_bt601():
    colors = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [7, 7, 7]])
    images = np.tile(colors[:, :, None, None], (1, 1, 4, 4)).astype(np.uint8)
    out = prepare(ImageData(images, None, "train"), size=4, channels=1).images
    assert out[:, 0, 0, 0].tolist() == [76, 150, 29, 255, 7]
    many = make(600)
    grey = prepare(many, size=8, channels=1).images[:, 0]
    exact = np.tensordot([0.299, 0.587, 0.114], many.images.astype(float), (0, 1))
    assert np.abs(grey - exact).max() <= 0.5001


@pytest.mark.parametrize(
    ("data", "keys", "error", "hint"),
    [
        (
            make(high=40),
            {"size": 32, "channels": 3, "fit": "pad"},
            {"code": "data-too-large-to-pad"},
            "crop",
        ),
        (
            make(),
            {"size": 32, "channels": 3, "fit": "crop"},
            {"code": "data-too-small-to-crop"},
            "pad",
        ),
        (
            make(wide=9),
            {"size": 8, "channels": 3, "fit": "resize"},
            {"code": "data-not-square"},
            "crop",
        ),
        (
            make(channels=4),
            {"size": 8, "channels": 3},
            {"code": "data-channels", "channels": 4},
            "data.channels",
        ),
        (make(), {"size": 8, "channels": 2}, {"code": "data-channels"}, "data.channels"),
        (
            make(),
            {"size": 4, "channels": 3, "fit": "stretch"},
            {"code": "data-fit-unknown", "name": "stretch"},
            "resize",
        ),
    ],
)
def test_impossible_conversions_are_rejected(data, keys, error, hint):
    with raises(DataError, **error) as caught:
        prepare(data, **keys)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("images", "labels", "error"),
    [
        (
            np.zeros((3, 3, 4, 4), np.float32),
            None,
            {"code": "data-images-form", "dtype": "float32"},
        ),
        (
            np.zeros((3, 4, 4), np.uint8),
            None,
            {"code": "data-images-form", "dtype": "uint8", "shape": (3, 4, 4)},
        ),
        (
            np.zeros((0, 3, 4, 4), np.uint8),
            None,
            {"code": "data-images-form", "shape": (0, 3, 4, 4)},
        ),
        (
            np.zeros((3, 3, 4, 4), np.uint8),
            np.zeros(2, np.int64),
            {"code": "data-labels-form", "dtype": "int64", "shape": (2,)},
        ),
        (
            np.zeros((3, 3, 4, 4), np.uint8),
            np.zeros(3, np.int32),
            {"code": "data-labels-form", "dtype": "int32"},
        ),
    ],
)
def test_image_data_rejects_other_arrays(images, labels, error):
    with raises(DataError, **error):
        ImageData(images, labels, "train")


def test_digests_distinguish_data():
    one, same = make(labels=np.arange(3)), make(labels=np.arange(3))
    assert one.digest == same.digest
    assert (
        len({one.digest, make().digest, make(seed=1).digest, make(labels=np.ones(3, int)).digest})
        == 4
    )


def test_require_labels():
    require_labels(make(labels=np.array([0, 2, 1])), 3)
    with raises(DataError, "data-labels-out-of-range", high=2, low=0, split="train"):
        require_labels(make(labels=np.array([0, 2, 1])), 2)
    with raises(DataError, "data-no-labels", split="train"):
        require_labels(make(), 2)
