from __future__ import annotations

import pytest
import torch
from errors_help import raises
from hypothesis import given, settings
from hypothesis import strategies as st

from cascadezoo.errors import InputError
from cascadezoo.evaluate.metrics import precision_recall
from cascadezoo.evaluate.metrics.base import MetricFeatures
from cascadezoo.evaluate.metrics.precision_recall import coverage, measure_precision, measure_recall
from cascadezoo.spec.configs import EmptyConfig


def clouds(n, m, width=8, shift=0.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    real = torch.randn(m, width, generator=generator)
    return torch.randn(n, width, generator=generator) * 0.8 + shift, real


def naive(inside, of, k):
    """Kynkaanniemi et al. 2019, eq. 1, one vector at a time."""
    radii = []
    for one in of:
        radii.append(sorted(float((one - other).norm()) for other in of)[k])
    covered = [
        any(float((x - y).norm()) <= r for y, r in zip(of, radii, strict=True)) for x in inside
    ]
    return sum(covered) / len(covered)


@settings(max_examples=15, deadline=None)
@given(n=st.integers(1, 30), m=st.integers(5, 30), k=st.integers(1, 4), seed=st.integers(0, 99))
def test_equals_the_formula(n, m, k, seed):
    inside, of = clouds(n, m, seed=seed)
    assert coverage(inside, of, neighbours=k) == naive(inside.double(), of.double(), k)


@pytest.mark.parametrize("block", [1, 5000, 1 << 24])
def test_agrees_with_torch_fidelity_for_any_block_size(block, monkeypatch):
    from torch_fidelity.metric_prc import calculate_precision_recall_full

    monkeypatch.setattr(precision_recall, "_BLOCK", block)
    generated, real = clouds(300, 400, width=12, shift=0.2)
    precision, recall = calculate_precision_recall_full(generated, real, neighborhood=3)
    assert coverage(generated, real) == pytest.approx(precision, abs=1e-6)
    assert coverage(real, generated) == pytest.approx(recall, abs=1e-6)
    assert 0.1 < recall < precision < 1


def test_a_set_covers_itself_and_no_distant_set():
    _, real = clouds(1, 50)
    assert coverage(real, real) == 1
    assert coverage(real + 100, real) == 0


def test_figures_and_their_spreads():
    generated, real = clouds(400, 500)
    features = MetricFeatures(generated=generated, real=real)
    precision = measure_precision(EmptyConfig(), features)
    recall = measure_recall(EmptyConfig(), features)
    assert precision.value == coverage(generated, real)
    assert recall.value == coverage(real, generated)
    for measured, count in ((precision, 400), (recall, 500)):
        share = measured.value
        assert measured.std == pytest.approx((share * (1 - share) / count) ** 0.5, rel=0.05)
        assert measured.tolerance == pytest.approx(8**0.5 * measured.std)
        assert measured.settings == {"neighbours": 3}
    far = measure_precision(EmptyConfig(), MetricFeatures(generated=generated + 100, real=real))
    assert far.value == 0
    assert 0 < far.std < 0.01


def test_missing_modes_lower_recall_but_not_precision():
    generator = torch.Generator().manual_seed(0)
    centres = 20 * torch.eye(4)
    real = centres.repeat(100, 1) + torch.randn(400, 4, generator=generator)
    generated = centres[:1] + torch.randn(400, 4, generator=generator)
    assert coverage(generated, real) > 0.85
    assert 0.15 < coverage(real, generated) < 0.3


@pytest.mark.parametrize(("n", "m"), [(10, 3), (3, 10)])
def test_too_few_images(n, m):
    generated, real = clouds(n, m)
    features = MetricFeatures(generated=generated, real=real)
    with raises(InputError, "input-too-few-images", needed=4):
        (measure_precision if m == 3 else measure_recall)(EmptyConfig(), features)


def test_features_of_different_lengths():
    with raises(InputError, "input-features-unlike", shapes=((5, 8), (5, 4))):
        coverage(torch.zeros(5, 8), torch.zeros(5, 4))
