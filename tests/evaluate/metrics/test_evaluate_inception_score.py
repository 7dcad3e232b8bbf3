from __future__ import annotations

import numpy as np
import pytest
import torch
from errors_help import raises
from hypothesis import given, settings
from hypothesis import strategies as st

from cascadezoo.data.pixels import to_float
from cascadezoo.errors import InputError
from cascadezoo.evaluate.features import small
from cascadezoo.evaluate.features.base import load_extractor
from cascadezoo.evaluate.metrics.base import MetricFeatures
from cascadezoo.evaluate.metrics.inception_score import inception_score, measure
from cascadezoo.spec.configs import EmptyConfig


def naive(logits, splits):
    """Salimans et al. 2016, section 4, in plain numpy, of images in the order given."""
    logits = logits.double().numpy()
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    scores = []
    for part in np.split(shares, splits):
        whole = part.mean(axis=0, keepdims=True)
        scores.append(np.exp((part * np.log(part / whole)).sum(axis=1).mean()))
    return np.mean(scores), np.std(scores)


def test_equals_the_formula():
    logits = 3 * torch.randn(400, 7, generator=torch.Generator().manual_seed(0))
    score = inception_score(logits, splits=8, seed=5)
    shuffled = logits[np.random.RandomState(5).permutation(400)]
    mean, std = naive(shuffled, 8)
    assert (score.mean, score.std) == (pytest.approx(mean), pytest.approx(std))


def test_equals_torch_fidelity():
    from torch_fidelity.metric_isc import isc_features_to_metric

    logits = 3 * torch.randn(333, 12, generator=torch.Generator().manual_seed(0))
    score = inception_score(logits, seed=2020)
    theirs = isc_features_to_metric(logits)
    assert score.mean == pytest.approx(theirs["inception_score_mean"], rel=1e-12)
    assert score.std == pytest.approx(theirs["inception_score_std"], rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(classes=st.integers(2, 12), copies=st.integers(1, 4), far=st.sampled_from([30.0, 1e4]))
def test_certain_and_uniform_predictions_score_the_number_of_classes(classes, copies, far):
    logits = far * torch.eye(classes).repeat(copies, 1)
    score = inception_score(logits, splits=1)
    assert score.mean == pytest.approx(classes, rel=1e-6)
    equal = inception_score(logits[:1].expand(20, -1))
    assert equal.mean == pytest.approx(1)


def test_too_few_images_for_the_splits():
    with raises(InputError, "input-too-few-images", splits=10, count=19, needed=20):
        inception_score(torch.zeros(19, 3))
    features = MetricFeatures(
        generated=torch.zeros(19, 256), real=torch.zeros(1, 256), extractor=load_extractor("small")
    )
    with raises(InputError, "input-too-few-images", count=19):
        measure(EmptyConfig(), features)


def test_an_extractor_without_a_classifier(means):
    features = torch.zeros(40, 12)
    with raises(InputError, "input-no-classifier", name="means") as caught:
        measure(EmptyConfig(), MetricFeatures(generated=features, real=features, extractor=means))
    assert '"inception-score"' in str(caught.value.hint)
    with raises(InputError, "input-no-extractor"):
        measure(EmptyConfig(), MetricFeatures(generated=features, real=features))


def test_the_small_extractor_s_head_gives_its_network_s_logits():
    extractor = load_extractor("small")
    images = torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8)
    logits = extractor.logits(extractor(images))
    torch.testing.assert_close(logits, small.load_network()(to_float(images)), rtol=1e-4, atol=1e-4)


def test_real_images_score_high_and_noise_low(cifar10, degraded):
    extractor = load_extractor("small")
    sets = degraded(cifar10["test"][:1000])
    scores = {
        name: measure(
            EmptyConfig(),
            MetricFeatures(
                generated=(rows := extractor(sets[name])), real=rows, extractor=extractor
            ),
        )
        for name in ("none", "blur 1.0", "uniform")
    }
    values = {name: score.value for name, score in scores.items()}
    assert 6 < values["none"] < 10
    assert values["none"] > values["blur 1.0"] > values["uniform"] >= 1
    assert scores["none"].settings == {"splits": 10, "classes": 10}
    assert scores["none"].n_real == 0
