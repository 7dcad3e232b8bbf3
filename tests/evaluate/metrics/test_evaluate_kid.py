from __future__ import annotations

import math

import pytest
import torch
from errors_help import raises
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cascadezoo.errors import InputError
from cascadezoo.evaluate.metrics.kid import default_subset_size, kernel_inception_distance


def two_clouds(n, m, width, shift=0.3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    real = torch.randn(m, width, generator=generator).relu()
    generated = (torch.randn(n, width, generator=generator) + shift).relu()
    return generated, real


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`")
@pytest.mark.parametrize(("n", "m", "size"), [(300, 400, 100), (64, 500, 64), (200, 200, 50)])
def test_equals_torchmetrics_to_the_last_bit(n, m, size):
    from torchmetrics.image.kid import KernelInceptionDistance

    generated, real = two_clouds(n, m, 96)
    theirs = KernelInceptionDistance(feature=nn.Identity(), subsets=20, subset_size=size)
    theirs.update(real, real=True)
    theirs.update(generated, real=False)
    torch.manual_seed(7)
    mean, std = theirs.compute()
    ours = kernel_inception_distance(generated, real, subsets=20, subset_size=size, seed=7)
    assert (ours.mean, ours.std) == (float(mean), float(std))


def test_agrees_with_torch_fidelity():
    from torch_fidelity.metric_kid import kid_features_to_metric

    generated, real = two_clouds(400, 500, 128)
    theirs = kid_features_to_metric(
        generated, real, kid_subsets=200, kid_subset_size=200, rng_seed=1, verbose=False
    )
    ours = kernel_inception_distance(generated, real, subsets=200, subset_size=200, seed=1)
    # The subsets differ, so the means differ by about their standard errors.
    error = 4 * math.hypot(ours.std, ours.std) / math.sqrt(200)
    assert abs(ours.mean - theirs["kernel_inception_distance_mean"]) < error
    assert ours.std == pytest.approx(theirs["kernel_inception_distance_std"], rel=0.3)
    # With subsets of all images both compute the same value.
    generated, real = generated[:200], real[:200]
    theirs = kid_features_to_metric(
        generated, real, kid_subsets=1, kid_subset_size=200, rng_seed=1, verbose=False
    )
    ours = kernel_inception_distance(generated, real, subsets=1, subset_size=200)
    assert ours.mean == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4)


def test_unbiased_for_equal_distributions_and_large_for_different_ones():
    same = kernel_inception_distance(*two_clouds(1000, 1000, 32, shift=0.0), subset_size=500)
    other = kernel_inception_distance(*two_clouds(1000, 1000, 32, shift=0.5), subset_size=500)
    assert abs(same.mean) < 3 * same.std
    assert other.mean > 20 * same.std


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_independent_of_the_global_rng(seed):
    generated, real = two_clouds(100, 100, 16)
    state = torch.get_rng_state()
    whole = kernel_inception_distance(generated, real, subsets=3, subset_size=40, seed=seed)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    again = kernel_inception_distance(generated, real, subsets=3, subset_size=40, seed=seed)
    assert again == whole


def test_the_seed_determines_the_subsets():
    clouds = two_clouds(100, 100, 16)
    values = {kernel_inception_distance(*clouds, subset_size=50, seed=s).mean for s in range(5)}
    assert len(values) == 5


@pytest.mark.parametrize(("n", "m", "which"), [(10, 60, "generated"), (60, 10, "real")])
def test_too_few_images_for_a_subset(n, m, which):
    with raises(InputError, "input-too-few-images", which=which, count=10) as caught:
        kernel_inception_distance(*two_clouds(n, m, 4), subset_size=50)
    assert "10" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"subsets": 0}, {"code": "input-subsets-invalid", "subsets": 0, "subset_size": 10}),
        ({"subset_size": 1}, {"code": "input-subsets-invalid", "subsets": 100, "subset_size": 1}),
    ],
)
def test_numbers_below_their_minimum(arguments, error):
    with raises(InputError, **error):
        kernel_inception_distance(*two_clouds(50, 50, 4), **{"subset_size": 10, **arguments})


def test_features_of_different_lengths():
    with raises(InputError, "input-features-unlike", shapes=((5, 8), (5, 4))):
        kernel_inception_distance(torch.zeros(5, 8), torch.zeros(5, 4), subset_size=2)


@pytest.mark.parametrize(
    ("n", "m", "size"), [(10_000, 50_000, 1000), (2000, 9000, 1000), (300, 900, 150), (3, 3, 2)]
)
def test_default_subset_size(n, m, size):
    assert default_subset_size(n, m) == size
