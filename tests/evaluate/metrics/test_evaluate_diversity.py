from __future__ import annotations

import numpy as np
import pytest
import torch
from errors_help import raises
from hypothesis import given
from hypothesis import strategies as st
from toy_cascades import bicubic, cascade_inputs, noise, same, smooth, spec, toy

from cascadezoo.data.base import ImageData
from cascadezoo.data.pixels import to_float
from cascadezoo.errors import InputError
from cascadezoo.evaluate.configs import LpipsMetricConfig
from cascadezoo.evaluate.evaluate_metrics import evaluate_metrics, no_images
from cascadezoo.evaluate.metrics.diversity import _distances, _windows, disjoint_pairs, measure
from cascadezoo.evaluate.options import EvaluationOptions

REAL = smooth(48)


@given(st.integers(0, 200), st.integers(1, 9), st.integers(0, 9))
def test_pairs_share_no_image_and_keep_to_their_labels(count, classes, seed):
    labels = np.arange(count) % classes
    for known in (None, labels):
        pairs = disjoint_pairs(count, known, torch.Generator().manual_seed(seed))
        used = pairs.flatten().tolist()
        assert len(used) == len(set(used))
        assert set(used) <= set(range(count))
        left = 1 if known is None else classes
        assert count - len(used) <= left
        if known is not None:
            assert (labels[pairs[:, 0]] == labels[pairs[:, 1]]).all()


@given(st.lists(st.integers(1, 9), max_size=9), st.integers(1, 12))
def test_windows_contain_every_image_in_order(sizes, window):
    images = torch.arange(sum(sizes))[:, None]
    windows = list(_windows(torch.split(images, sizes), window)) if sizes else []
    assert all(len(part) == window for part in windows[:-1])
    assert torch.equal(torch.cat([torch.empty(0, 1, dtype=torch.int64), *windows]), images)


def test_batches_do_not_change_the_distances():
    values = torch.rand(40)

    def gap(left, right):
        return (left - right).abs().flatten().float()

    parts = [_distances(gap, torch.split(values, b), None, 64, 3)[0] for b in (1, 7, 40)]
    assert torch.equal(parts[0], parts[1])
    assert torch.equal(parts[0], parts[2])
    small = _distances(gap, [values], np.arange(40) % 2, 8, 3)
    assert [len(part) for part in small] == [20, 20]
    assert float(small[0].mean()) == pytest.approx(1 / 3, abs=0.15)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The parameter 'pretrained'", "ignore:Arguments other than")
def test_mean_distance_equals_the_lpips_package(means, torch_home):
    import lpips

    # Samples of one label are one image; those of different labels differ.
    cascade = toy(spec(), noise, bicubic, same)
    classes = cascade.resolved.num_classes
    protos = to_float(torch.from_numpy(REAL.images[:classes]))

    def sample(first, count):
        return protos[torch.arange(first, first + count) % classes]

    one = cascade_inputs(cascade, means, REAL, n=40, sample=sample, seed=5)
    results = measure(LpipsMetricConfig(), one)
    assert set(results) == {"", "within-class", "real", "real-within-class"}
    assert results["within-class"].value == pytest.approx(0, abs=1e-6)
    assert results[""].settings == {"pairs": 20}
    assert results["real"].value > results["within-class"].value
    network = lpips.LPIPS(net="vgg", verbose=False)
    with torch.no_grad():
        table = torch.stack([network(protos, p[None].expand_as(protos)).flatten() for p in protos])
    # Each image is in one pair, so the expected value is the mean over all pairs.
    others = table.sum() / (classes * (classes - 1)) * (40 - 40 // classes) / 39
    assert results[""].value == pytest.approx(float(others), abs=4 * results[""].std)
    again = measure(
        LpipsMetricConfig(), cascade_inputs(cascade, means, REAL, n=40, sample=sample, seed=5)
    )
    assert again == results
    twins = cascade_inputs(
        cascade, means, REAL, n=40, sample=lambda f, c: protos[:1].expand(c, -1, -1, -1)
    )
    assert measure(LpipsMetricConfig(), twins)[""].value == pytest.approx(0, abs=1e-6)


def test_names_of_figures_without_real_images(means, torch_home):
    from cascadezoo.evaluate.evaluate_metrics import Subject

    cascade = toy(spec(), noise, bicubic, same)
    missing = no_images((3, 16, 16), "test")
    subject = Subject(cascade=cascade, real=missing, split=lambda _: missing)
    figures = evaluate_metrics(["diversity"], subject, EvaluationOptions(n=20), extractor=means)
    names = [f.name for f in figures if f.metric == "diversity"]
    assert names == ["diversity.vgg.n20", "diversity.vgg.n20.within-class"]
    assert figures[0].split is None
    with_data = Subject(
        cascade=cascade, real=ImageData(REAL.images, REAL.labels, "test"), split=None
    )
    figures = evaluate_metrics(["diversity"], with_data, EvaluationOptions(n=20), extractor=means)
    assert [f.name for f in figures if f.metric == "diversity"][2:] == [
        "diversity.vgg.n20.real.test",
        "diversity.vgg.n20.real-within-class.test",
    ]


def test_one_image_is_too_few(means):
    cascade = toy(spec(), noise, bicubic, same)
    with raises(InputError, "input-too-few-pairs", n=1):
        measure(LpipsMetricConfig(), cascade_inputs(cascade, means, REAL, n=1))
