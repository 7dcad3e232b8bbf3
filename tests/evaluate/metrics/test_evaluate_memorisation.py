from __future__ import annotations

import numpy as np
import pytest
import torch
from errors_help import raises
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu
from toy_cascades import bicubic, cascade_inputs, noise, same, spec, toy

from cascadezoo.data.base import ImageData
from cascadezoo.data.pixels import to_float
from cascadezoo.errors import DataError
from cascadezoo.evaluate.evaluate_sampler import figure_of
from cascadezoo.evaluate.features.base import load_extractor
from cascadezoo.evaluate.metrics.memorisation import measure, nearer, nearest, nearest_rows
from cascadezoo.evaluate.options import EvaluationOptions
from cascadezoo.spec.configs import EmptyConfig

PLAIN = EmptyConfig()


def grainy(count, seed, split="train"):
    images = np.random.default_rng(seed).integers(0, 256, (count, 3, 16, 16), dtype=np.uint8)
    # The upper half of each image has its own brightness, so that the features differ.
    images[:, :, :8] //= (
        np.random.default_rng(seed + 1).integers(1, 5, (count, 3, 1, 1)).astype(np.uint8)
    )
    return ImageData(images, np.arange(count) % 10, split)


TRAIN, TEST = grainy(400, 0), grainy(200, 10, "test")


def measured(means, images, n=200, **rest):
    cascade = toy(spec(), noise, bicubic, same)
    floats = to_float(torch.from_numpy(images))
    return measure(
        PLAIN,
        cascade_inputs(
            cascade, means, TRAIN, n=n, test=TEST, sample=lambda f, c: floats[f : f + c], **rest
        ),
    )


def test_copies_of_training_images_are_detected(means):
    results = measured(means, TRAIN.images[:200])
    assert results[""].value == 1
    assert results["closest"].value == 1
    assert float(results[""].note.split()[2]) > 10


def test_images_as_new_as_the_test_images(means):
    assert measured(means, TEST.images)[""].value == pytest.approx(0.5, abs=1e-9)
    fresh = measured(means, grainy(200, 77).images)
    assert fresh[""].value == pytest.approx(0.5, abs=3 * fresh[""].std)
    assert fresh["closest"].value == pytest.approx(0.01, abs=0.03)


def test_images_far_from_the_data_are_not_copies(means):
    far = np.full_like(TEST.images, 255)
    assert measured(means, far)[""].value < 0.02


def test_closest_shows_a_few_copies_among_new_images(means):
    images = grainy(200, 77).images.copy()
    images[::10] = TRAIN.images[:20]
    results = measured(means, images)
    assert results["closest"].value >= 0.1
    assert results[""].value < 0.65


def test_figures_are_of_the_training_split(means):
    results = measured(means, TEST.images)
    figure = figure_of(
        "memorisation",
        results["closest"],
        TEST,
        EvaluationOptions(n=200, precision="fp32", seed=0),
        extractor=means,
        seconds=1,
        part="closest",
    )
    assert figure.name == "memorisation.means.n200.closest"
    assert figure.settings == {"test_images": 200, "train_images": 400}


def test_nearest_returns_image_indices(means):
    images = to_float(torch.from_numpy(grainy(40, 5).images))
    images[3], images[30] = (to_float(torch.from_numpy(TRAIN.images[i])) for i in (17, 311))
    cascade = toy(spec(), noise, bicubic, same)
    results = nearest(
        cascade_inputs(
            cascade, means, TRAIN, n=40, test=TEST, sample=lambda f, c: images[f : f + c]
        ),
        3,
    )
    assert [(row.sample, row.real) for row in results[:2]] == [(3, 17), (30, 311)]
    assert results[0].distance == results[1].distance == 0
    assert results[2].distance > 0


def test_data_without_test_images(means):
    def split(name):
        if name == "test":
            raise DataError("no test split", code="data-no-test-split")
        return TRAIN

    cascade = toy(spec(), noise, bicubic, same)
    one = cascade_inputs(cascade, means, TRAIN, n=10)
    object.__setattr__(one, "split", split)
    with raises(DataError, "data-no-test-split"):
        measure(PLAIN, one)


@given(st.integers(1, 40), st.integers(1, 60), st.integers(0, 99))
def test_nearest_rows_agree_with_all_distances(n, m, seed):
    generator = torch.Generator().manual_seed(seed)
    features, real = (torch.randn(k, 5, generator=generator) + 30 for k in (n, m))
    features[0] = real[m // 2]
    distances, rows = nearest_rows(features, real)
    plain = (features[:, None].double() - real.double()).square().sum(dim=2).sqrt()
    torch.testing.assert_close(distances, plain.min(dim=1).values.float())
    assert torch.equal(rows, plain.argmin(dim=1))
    assert distances[0] == 0


@given(
    st.lists(st.integers(0, 8), min_size=1, max_size=30),
    st.lists(st.integers(0, 8), min_size=1, max_size=30),
)
def test_nearer_is_the_mann_whitney_statistic(samples, reference):
    chance, z = nearer(torch.tensor(samples).float(), torch.tensor(reference).float())
    statistic = mannwhitneyu(reference, samples).statistic
    assert chance == pytest.approx(statistic / len(samples) / len(reference))
    assert (z > 0) == (chance > 0.5)


@pytest.mark.slow
def test_real_training_images_are_copies_and_test_images_are_not(cifar10):
    train = ImageData(cifar10["train"][:5000].numpy(), None, "train")
    test = ImageData(cifar10["test"][:1000].numpy(), None, "test")
    cascade = toy(spec(32, data={"source": "shapes", "config": {"size": 32}}), noise, bicubic, same)
    extractor = load_extractor("small")
    for images, low, high in (
        (cifar10["test"][1000:2000], 0.45, 0.55),
        (cifar10["train"][:1000], 1, 1),
    ):
        floats = to_float(images)
        one = cascade_inputs(
            cascade,
            extractor,
            train,
            n=1000,
            test=test,
            sample=lambda f, c, floats=floats: floats[f : f + c],
            batch_size=250,
        )
        assert low <= measure(PLAIN, one)[""].value <= high
