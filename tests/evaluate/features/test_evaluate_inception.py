from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch
from errors_help import raises

from cascadezoo.data.pixels import to_float
from cascadezoo.errors import WeightsUnavailableError
from cascadezoo.evaluate.features.base import load_extractor
from cascadezoo.evaluate.features.inception import WEIGHTS_FILE
from cascadezoo.evaluate.metrics.kid import kernel_inception_distance


@pytest.fixture
def closed_port():
    """The port of a proxy that refuses connections, so that no request leaves the machine."""
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return door.getsockname()[1]


def test_without_weights_and_network_the_hint_names_three_solutions(
    tmp_path, monkeypatch, closed_port
):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with raises(WeightsUnavailableError, "weights-unavailable", path=WEIGHTS_FILE) as caught:
        load_extractor("inception")
    hint = str(caught.value.hint)
    values = (
        WEIGHTS_FILE,
        "$TORCH_HOME",
        '"evaluation.extractor": "small"',
        '"evaluation.metrics"',
    )
    assert [value for value in values if value not in hint] == []
    assert not list((tmp_path / "hub" / "checkpoints").iterdir())


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\x03\x04 cut off"])
def test_a_file_that_contains_no_weights(tmp_path, monkeypatch, content):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / WEIGHTS_FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with raises(
        WeightsUnavailableError,
        "weights-unreadable",
        path="weights-inception-2015-12-05-6726825d.pth",
    ) as caught:
        load_extractor("inception")
    assert str(path) in str(caught.value.hint)


class Intruder:
    """Runs code when it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("code", [False, True], ids=["another network", "code"])
def test_a_file_with_different_contents(tmp_path, monkeypatch, code):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / WEIGHTS_FILE
    path.parent.mkdir(parents=True)
    torch.save({"a": Intruder(tmp_path / "trace") if code else torch.zeros(3)}, path)
    with raises(
        WeightsUnavailableError,
        "weights-unreadable",
        path="weights-inception-2015-12-05-6726825d.pth",
    ):
        load_extractor("inception")
    assert not (tmp_path / "trace").exists()


@pytest.mark.slow
def test_weights_that_are_not_finite(torch_home, tmp_path, monkeypatch):
    checkpoints = Path("hub", "checkpoints")
    weights = torch.load(torch_home / checkpoints / WEIGHTS_FILE, weights_only=True)
    weights["Mixed_7c.branch1x1.conv.weight"][3, 5] = float("nan")
    (tmp_path / checkpoints).mkdir(parents=True)
    torch.save(weights, tmp_path / checkpoints / WEIGHTS_FILE)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with raises(
        WeightsUnavailableError,
        "weights-not-finite",
        path="weights-inception-2015-12-05-6726825d.pth",
    ):
        load_extractor("inception")


@pytest.mark.slow
def test_equals_features_and_kid_of_torch_fidelity(torch_home, cifar10, degraded):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    from torchmetrics.image.kid import KernelInceptionDistance

    extractor = load_extractor("inception")
    assert extractor.num_features == 2048
    theirs = _Only(FeatureExtractorInceptionV3("inception-v3-compat", ["2048"]))
    sets = {"real": cifar10["train"][:30], "noise": degraded(cifar10["test"][:30])["noise"]}
    with pytest.warns(UserWarning, match="save all extracted features"):
        metric = KernelInceptionDistance(
            feature=theirs, subsets=10, subset_size=15, normalize=False
        )
    metric.update(sets["real"], real=True)
    metric.update(sets["noise"], real=False)
    torch.manual_seed(5)
    mean, std = metric.compute()
    real, noise = extractor(to_float(sets["real"])), extractor(sets["noise"])
    torch.testing.assert_close(real, theirs.seen[0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(noise, theirs.seen[1], rtol=1e-3, atol=1e-4)
    ours = kernel_inception_distance(noise, real, subsets=10, subset_size=15, seed=5)
    assert ours.mean == pytest.approx(float(mean), rel=1e-3)
    assert ours.std == pytest.approx(float(std), rel=1e-3)
    assert 0.05 < ours.mean < 0.15
    # Unchanged test images, in bf16.
    half = {"precision": "bf16"}
    rough, plain = (extractor(part, **half) for part in (sets["real"], cifar10["test"][:30]))
    assert 0 < rough.sub(real).abs().mean() < 0.02
    same = kernel_inception_distance(plain, rough, subsets=10, subset_size=15, seed=5)
    assert abs(same.mean) < 3 * same.std
    assert same.mean < ours.mean / 10


class _Only(torch.nn.Module):
    """torch-fidelity's network returns a tuple; torchmetrics needs a tensor."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.seen = []

    def forward(self, images):
        self.seen.append(self.network(images)[0])
        return self.seen[-1]
