"""Figures compared with torch-fidelity on the same images and the published Inception weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from errors_help import raises
from torch.utils.data import Dataset

from cascadezoo.errors import WeightsUnavailableError
from cascadezoo.evaluate.features.base import load_extractor
from cascadezoo.evaluate.features.inception import WEIGHTS_FILE
from cascadezoo.evaluate.features.moments import Statistics
from cascadezoo.evaluate.metrics.base import MetricFeatures
from cascadezoo.evaluate.metrics.fid import frechet_distance
from cascadezoo.evaluate.metrics.inception_score import inception_score, measure
from cascadezoo.evaluate.metrics.kid import kernel_inception_distance
from cascadezoo.evaluate.metrics.precision_recall import coverage
from cascadezoo.spec.configs import EmptyConfig

N = 24


class Images(Dataset):
    """The dataset for torch-fidelity."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]


@pytest.fixture
def some_head(torch_home, tmp_path, monkeypatch) -> Path:
    """The published weights with a random classifier, which the development file lacks."""
    checkpoints = Path("hub", "checkpoints")
    weights = torch.load(torch_home / checkpoints / WEIGHTS_FILE, weights_only=True)
    generator = torch.Generator().manual_seed(0)
    for name in ("fc.weight", "fc.bias"):
        weights[name] = 0.2 * torch.randn(weights[name].shape, generator=generator)
    (tmp_path / checkpoints).mkdir(parents=True)
    path = tmp_path / checkpoints / WEIGHTS_FILE
    torch.save(weights, path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return path


@pytest.mark.slow
def test_every_figure_agrees_with_torch_fidelity(some_head, cifar10, degraded):
    from torch_fidelity import calculate_metrics

    sets = (degraded(cifar10["test"][:N])["bicubic"], cifar10["train"][:N])
    theirs = calculate_metrics(
        input1=Images(sets[0]),
        input2=Images(sets[1]),
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(some_head),
        cuda=False,
        batch_size=N,
        isc=True,
        fid=True,
        kid=True,
        prc=True,
        kid_subsets=1,
        kid_subset_size=N,  # all images, so that the subsets are equal
        save_cpu_ram=True,  # in this process
        cache=False,
        verbose=False,
    )
    extractor = load_extractor("inception")
    generated, real = (extractor(images) for images in sets)

    kid = kernel_inception_distance(generated, real, subsets=1, subset_size=N)
    assert kid.mean == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-3)
    fid = frechet_distance(generated, Statistics.of(real))
    assert fid.value == pytest.approx(theirs["frechet_inception_distance"], rel=1e-3)
    score = inception_score(extractor.logits(generated), seed=2020)
    assert score.mean == pytest.approx(theirs["inception_score_mean"], rel=1e-3)
    assert score.std == pytest.approx(theirs["inception_score_std"], rel=1e-3)
    assert score.mean > 1.2
    assert coverage(generated, real) == pytest.approx(theirs["precision"], abs=1.01 / N)
    assert coverage(real, generated) == pytest.approx(theirs["recall"], abs=1.01 / N)


@pytest.mark.slow
def test_a_missing_classifier_is_an_error(torch_home, cifar10):
    extractor = load_extractor("inception")
    features = torch.zeros(40, 2048)
    with raises(WeightsUnavailableError, "weights-classifier-not-finite") as caught:
        measure(
            EmptyConfig(), MetricFeatures(generated=features, real=features, extractor=extractor)
        )
    assert WEIGHTS_FILE in str(caught.value)
    assert '"evaluation.extractor": "small"' in str(caught.value.hint)
    assert '"inception-score"' in str(caught.value.hint)
    # The features are valid nevertheless.
    assert extractor(cifar10["test"][:1]).isfinite().all()


@pytest.mark.slow
def test_the_digest_of_the_features_excludes_the_head(some_head, torch_home, monkeypatch):
    one = load_extractor("inception")
    monkeypatch.setenv("TORCH_HOME", str(torch_home))
    two = load_extractor("inception")
    assert one.sha256 == two.sha256
    assert one.head_sha256 != two.head_sha256
