from __future__ import annotations

import numpy as np
import pytest
import torch
from errors_help import raises
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg

from cascadezoo.errors import InputError
from cascadezoo.evaluate.features.base import load_extractor
from cascadezoo.evaluate.features.moments import Moments, Statistics
from cascadezoo.evaluate.metrics.base import MetricFeatures
from cascadezoo.evaluate.metrics.fid import frechet_distance, measure
from cascadezoo.spec.configs import EmptyConfig


def cloud(count, width, *, seed=0, scale=1.0, shift=0.0):
    """Correlated features, like those of a network after ReLU."""
    mix = torch.randn(width, width, generator=torch.Generator().manual_seed(99)) / width**0.5
    rows = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    return (rows @ mix * scale + shift).relu()


def naive(one, two):
    """Heusel et al. 2017, eq. 6, with scipy's matrix root."""
    one, two = one.double().numpy(), two.double().numpy()
    m, w = one.mean(axis=0), two.mean(axis=0)
    c, v = np.cov(one, rowvar=False), np.cov(two, rowvar=False)
    return float(((m - w) ** 2).sum() + np.trace(c + v - 2 * linalg.sqrtm(c @ v).real))


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(2, 3000),
    cuts=st.lists(st.integers(0, 3000), max_size=6),
    far=st.sampled_from([0.0, 1e4]),
)
def test_moments_of_batches_are_those_of_the_whole(count, cuts, far):
    rows = torch.randn(count, 5, generator=torch.Generator().manual_seed(count)).double() + far
    moments = Moments(5)
    for part in rows.tensor_split(sorted(min(cut, count) for cut in cuts)):
        if len(part):
            moments.add(part)
    streamed = moments.statistics()
    assert streamed.count == count
    torch.testing.assert_close(streamed.mean, rows.mean(dim=0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(streamed.covariance, torch.cov(rows.T), rtol=1e-9, atol=1e-9)
    one = Statistics.of(rows)
    torch.testing.assert_close(streamed.covariance, one.covariance, rtol=1e-9, atol=1e-9)


def test_one_image_has_no_covariance():
    moments = Moments(4)
    moments.add(torch.ones(1, 4))
    with raises(InputError, "input-too-few-covariance", count=1):
        moments.statistics()


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_equals_the_formula(shift):
    generated, real = cloud(900, 64, shift=shift), cloud(1200, 64, seed=1)
    fid = frechet_distance(generated, Statistics.of(real))
    assert fid.value == pytest.approx(naive(generated, real), rel=1e-6)


def test_agrees_with_torch_fidelity_and_torchmetrics():
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torchmetrics.image.fid import FrechetInceptionDistance

    generated, real = cloud(700, 96, scale=1.2), cloud(2500, 96, seed=1)
    ours = frechet_distance(generated, Statistics.of(real)).value
    stats = [fid_features_to_statistics(part) for part in (generated, real)]
    theirs = fid_statistics_to_metric(*stats, False)["frechet_inception_distance"]
    assert ours == pytest.approx(theirs, rel=1e-5)
    network = torch.nn.Identity()
    network.num_features = 96
    metric = FrechetInceptionDistance(feature=network).set_dtype(torch.float64)
    metric.update(generated.double(), real=False)
    metric.update(real.double(), real=True)
    assert ours == pytest.approx(float(metric.compute()), rel=1e-6)


def test_gaussians_with_a_known_distance():
    # Exact statistics: the distance is |m - w|^2 + sum (s - t)^2 of the deviations.
    deviations = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64)
    corners = torch.tensor([[a, b] for a in (-1.0, 1.0) for b in (-1.0, 1.0)])
    grid = torch.cat([torch.cat([corners, corners.flip(0)], dim=1)] * 8).double()
    grid = torch.linalg.qr(grid - grid.mean(dim=0) + torch.randn(32, 4).double()).Q
    grid = grid - grid.mean(dim=0)
    white = torch.linalg.inv(torch.linalg.cholesky(torch.cov(grid.T)))
    grid = grid @ white.T
    real = Statistics(50, torch.zeros(4).double(), torch.diag(deviations**2))
    fid = frechet_distance(grid * 2 + 0.1, real)
    assert fid.value == pytest.approx(0.04 + float(((2 - deviations) ** 2).sum()), rel=1e-6)


@pytest.mark.parametrize(("n", "m", "which"), [(64, 300, "generated"), (300, 64, "real")])
def test_too_few_images_for_a_covariance(n, m, which):
    features = MetricFeatures(generated=cloud(n, 64), real=cloud(m, 64, seed=1))
    with raises(InputError, "input-too-few-images", which=which, count=64, needed=65) as caught:
        measure(EmptyConfig(), features)
    assert '"kid"' in str(caught.value.hint)


def test_the_minimum_number_of_images():
    features = MetricFeatures(generated=cloud(65, 64), real=cloud(65, 64, seed=1))
    fid = measure(EmptyConfig(), features)
    assert fid.value > 0
    assert 0 < fid.std < fid.value


@pytest.mark.parametrize("what", ["equal images", "dead features"])
def test_constant_features_do_not_give_nan(what):
    real = cloud(200, 8, seed=1)
    generated = real[:1].expand(100, -1) if what == "equal images" else cloud(100, 8)
    if what == "dead features":
        generated, real = generated * (torch.arange(8) < 5), real * (torch.arange(8) < 6)
    fid = measure(EmptyConfig(), MetricFeatures(generated=generated, real=real))
    assert fid.value > 0
    assert fid.std >= 0
    assert fid.tolerance == pytest.approx(8**0.5 * fid.std)


def test_features_of_different_lengths():
    with raises(InputError, "input-features-unlike"):
        frechet_distance(torch.zeros(20, 4), Statistics.of(torch.randn(20, 5)))


@pytest.mark.parametrize(("shift", "n"), [(0.0, 400), (0.2, 400), (0.2, 100)])
def test_the_standard_error_agrees_with_repeated_draws(shift, n):
    real = Statistics.of(cloud(20_000, 24, seed=1))
    fids = [frechet_distance(cloud(n, 24, seed=seed, shift=shift), real) for seed in range(2, 122)]
    spread = float(np.std([fid.value for fid in fids], ddof=1))
    error = float(np.mean([fid.std for fid in fids]))
    # 120 draws give the deviation within 7 %; near 0 the standard error is too large.
    assert 0.8 * spread < error < (2 if shift == 0 else 1.25) * spread


@pytest.mark.slow
def test_real_cifar10_against_train_and_test(cifar10, degraded):
    """Test images are nearer to training images than anything degraded; n = 2000, D = 256."""
    extractor = load_extractor("small")
    real = Statistics.of(extractor(cifar10["train"][:4000]))
    sets = degraded(cifar10["test"][:1000])
    fids = {
        name: frechet_distance(extractor(sets[name]), real)
        for name in ("none", "bicubic", "noise", "uniform")
    }
    values = [fid.value for fid in fids.values()]
    assert values == sorted(values)
    assert values[1] - values[0] > 10 * fids["none"].std
