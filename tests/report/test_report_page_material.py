"""Data of a page: metrics.json, planes of features, samples cut from pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from errors_help import raises

from cascadezoo.errors import InputError, ModelError
from cascadezoo.report.images import cut_samples, samples_picture, to_uint8
from cascadezoo.report.projection import pca, project
from cascadezoo.report.recorded_metrics import read_recorded

FAULTS = {
    "no object": ([], {"code": "model-metrics-not-json"}),
    "figures": ({"figures": {}}, {"problems": {"figures": "list-type"}}),
    "a figure": ({"figures": [3]}, {"problems": {"figures.0": "model-type"}}),
    "nan": (
        {"figures": [{"name": "kid.n4", "metric": "kid", "value": float("nan"), "n": 4}]},
        {"problems": {"figures.0.value": "finite-number"}},
    ),
    "a name": (
        {"figures": [{"name": "fid.n4", "metric": "kid", "value": 1.0, "n": 4}]},
        {"problems": {"figures.0": "value-error"}},
    ),
    "seconds": (
        {"training": {"seconds_per_epoch": {"a": "1"}}},
        {"problems": {"training.seconds_per_epoch.a": "float-type"}},
    ),
    "huge": ({"training": {"seconds": 10**400}}, {"problems": {"training.seconds": "float-type"}}),
    "losses": (
        {"training": {"losses": {"a": [1]}}},
        {"problems": {"training.losses.a": "dict-type"}},
    ),
    "course": ({"course": [{"epoch": True}]}, {"problems": {"course.0.epoch": "float-type"}}),
    "attribution": (
        {"attribution": [{"real": 1}]},
        {"problems": {"attribution.0.real": "model-type"}},
    ),
}


@pytest.mark.parametrize(("content", "error"), FAULTS.values(), ids=FAULTS)
def test_invalid_metrics_are_refused_with_their_path(content, error, tmp_path: Path):
    (tmp_path / "metrics.json").write_text(json.dumps(content))
    with raises(ModelError, **{"code": "model-metrics-invalid", **error}):
        read_recorded(tmp_path)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "\x00", "1" * 5000])
def test_metrics_that_are_not_json_are_refused(text, tmp_path: Path):
    (tmp_path / "metrics.json").write_text(text)
    with raises(ModelError, "model-metrics-not-json") as caught:
        read_recorded(tmp_path)
    assert "metrics.json" in caught.value.what


def test_metrics_may_lack_anything(tmp_path: Path):
    assert read_recorded(tmp_path) is None
    (tmp_path / "metrics.json").write_text('{"training": {"losses": {"a": {"b": NaN}}}, "new": 1}')
    recorded = read_recorded(tmp_path)
    assert recorded is not None
    assert recorded.figures == recorded.course == recorded.attribution == []
    assert np.isnan(recorded.losses["a"]["b"])


# --- features


def test_the_plane_is_that_of_the_principal_components():
    random = torch.Generator().manual_seed(0)
    real = torch.randn(300, 12, generator=random) @ torch.randn(12, 12, generator=random) + 5
    generated = torch.randn(40, 12, generator=random)
    plane, projected, shares = pca(real, generated)
    known = real.double().numpy()
    values, vectors = np.linalg.eigh(np.cov(known.T))
    assert shares == pytest.approx(values[::-1][:2] / values.sum())
    axes = vectors[:, ::-1][:, :2]
    axes *= np.sign(axes[np.abs(axes).argmax(0), [0, 1]])
    assert np.allclose(plane.numpy(), (known - known.mean(0)) @ axes)
    assert np.allclose(projected.numpy(), (generated.double().numpy() - known.mean(0)) @ axes)
    assert plane.mean(0).abs().max() < 1e-9


def test_features_that_span_no_plane_are_refused():
    with raises(InputError, "input-features-plane"):
        pca(torch.zeros(2, 4), torch.zeros(2, 4))
    with raises(InputError, "input-features-plane"):
        project(torch.zeros(9, 4), torch.zeros(2, 5), "pca", extractor="small", split="test")
    plane, _, shares = pca(torch.ones(5, 3), torch.zeros(2, 3))
    assert shares == (0.0, 0.0)
    assert not plane.any()


# --- samples from a card's picture


@pytest.mark.parametrize(
    ("size", "n", "stages"), [(8, 36, 0), (16, 36, 2), (28, 7, 0), (128, 5, 0)]
)
def test_samples_can_be_cut_from_a_cards_picture(size, n, stages):
    random = torch.Generator().manual_seed(size)
    images = torch.rand(n, 3, size, size, generator=random) * 2 - 1
    strip = {f"s{i}": images for i in range(stages)} or None
    picture = samples_picture(images, strip)
    samples = cut_samples(picture, size, 9)
    assert samples is not None
    assert len(samples) == min(9, n)
    for cut, image in zip(samples, to_uint8(images), strict=False):
        assert np.array_equal(np.asarray(cut), image.permute(1, 2, 0).numpy())
    assert cut_samples(picture.crop((5, 5, *picture.size)), size, 9) is None
