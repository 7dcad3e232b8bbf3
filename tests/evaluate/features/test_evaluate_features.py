from __future__ import annotations

import pytest
import torch
from errors_help import raises
from hypothesis import given
from hypothesis import strategies as st

from cascadezoo.data.pixels import to_float, to_uint8
from cascadezoo.errors import InputError, PluginError, UnknownNameError, WeightsUnavailableError
from cascadezoo.evaluate.features.base import load_extractor, tensors_digest


@given(st.lists(st.integers(0, 255), min_size=1, max_size=64))
def test_bytes_survive_conversion_to_float(values):
    images = torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1, 1)
    assert torch.equal(to_uint8(to_float(images)), images)


def test_floats_are_clamped_and_rounded_to_the_nearest_byte():
    values = torch.tensor([-3.0, -1.0, -0.9999, 0.0, 0.004, 1.0, 7.0]).view(1, 1, 1, 7)
    assert to_uint8(values).flatten().tolist() == [0, 0, 0, 128, 128, 255, 255]
    assert to_uint8(values.bfloat16()).dtype == torch.uint8


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_images_that_are_not_finite(means, dtype, bad):
    images = torch.zeros(6, 3, 8, 8, dtype=dtype)
    images[2, 1, 3, 3] = images[5, 0, 0, 0] = bad
    with raises(InputError, "input-images-not-finite", count=2, total=6):
        means(images)


@pytest.mark.parametrize(
    ("images", "error"),
    [
        (torch.zeros(3, 8, 8), {"code": "input-images-shape", "shape": (3, 8, 8)}),
        (torch.zeros(2, 4, 8, 8), {"code": "input-images-shape", "shape": (2, 4, 8, 8)}),
        (torch.zeros(2, 3, 0, 8), {"code": "input-images-shape", "shape": (2, 3, 0, 8)}),
        (torch.zeros(2, 3, 8, 8, dtype=torch.int64), {"code": "input-images-dtype"}),
    ],
)
def test_invalid_images(means, images, error):
    with raises(InputError, **error):
        means(images)


def test_floats_bytes_and_batches_give_the_same_features(means):
    images = torch.randint(0, 256, (50, 3, 8, 8), dtype=torch.uint8)
    features = means(images)
    assert features.shape == (50, 12)
    assert features.dtype == torch.float32
    assert torch.equal(means(to_float(images)), features)
    assert torch.equal(torch.cat([means(part) for part in images.split(7)]), features)
    corner = images[:, 0, :4, :4].float().mean(dim=(1, 2)) / 255
    torch.testing.assert_close(features[:, 0], corner)


def test_one_channel_is_repeated(means):
    images = torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8)
    assert torch.equal(means(images), means(images.expand(-1, 3, -1, -1)))


def test_the_network_receives_channels_last_bytes_in_batches(means):
    class Recording(type(means)):
        def features(self, images):
            batches.append(images)
            return super().features(images)

    batches = []
    Recording()(torch.zeros(35, 1, 8, 8))
    assert [len(images) for images in batches] == [12, 12, 11]
    assert all(images.dtype == torch.uint8 for images in batches)
    assert all(images.is_contiguous(memory_format=torch.channels_last) for images in batches)


def test_no_images_have_no_features(means):
    assert means(torch.zeros(0, 3, 8, 8)).shape == (0, 12)


def test_an_extractor_with_the_wrong_number_of_features(means):
    means.num_features = 7
    with raises(PluginError, "plugin-features-shape", name="means", shape=(2, 12)):
        means(torch.zeros(2, 3, 8, 8))


def test_damaged_weights_are_an_error(means):
    class Damaged(type(means)):
        def features(self, images):
            return super().features(images) / 0

    with raises(WeightsUnavailableError, "weights-not-finite", name="means"):
        Damaged()(torch.zeros(2, 3, 8, 8))


def test_unknown_precision(means):
    with raises(InputError, "input-precision-unknown", name="fp16"):
        means(torch.zeros(2, 3, 8, 8), precision="fp16")


def test_the_registry_has_the_built_in_extractors():
    assert load_extractor("small").describe()["name"] == "small"
    with raises(UnknownNameError, "lookup", kind="feature extractor", name="smal"):
        load_extractor("smal")


def test_the_digest_depends_on_tensors_but_not_on_their_order():
    one, two = torch.arange(4.0), torch.arange(4.0).view(2, 2)
    assert tensors_digest([("a", one), ("b", two)]) == tensors_digest([("b", two), ("a", one)])
    assert len({tensors_digest([("a", t)]) for t in (one, two, one.half(), -one)}) == 4
