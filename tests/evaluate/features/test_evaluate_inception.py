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
    """A proxy that refuses, so that nothing outside this machine is asked."""
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return door.getsockname()[1]


def test_without_weights_and_network_the_three_ways_out(tmp_path, monkeypatch, closed_port):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(WeightsUnavailableError) as caught:
        load_extractor("inception")
    hint = str(caught.value.hint)
    assert f"place {WEIGHTS_FILE} in $TORCH_HOME/hub/checkpoints" in hint
    assert '"evaluation.extractor": "small"' in hint
    assert 'leave "kid" and what else needs it out of "evaluation.metrics"' in hint
    assert not list((tmp_path / "hub" / "checkpoints").iterdir())


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\x03\x04 cut off"])
def test_a_file_that_is_no_weights(tmp_path, monkeypatch, content):
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
def test_a_file_with_other_things_than_the_weights(tmp_path, monkeypatch, code):
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
def test_gives_the_features_and_kid_of_torch_fidelity(torch_home, cifar10, degraded):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    from torchmetrics.image.kid import KernelInceptionDistance

    extractor = load_extractor("inception")
    assert extractor.num_features == 2048
    theirs = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    images = cifar10["test"][:20]
    bare = theirs(images)[0]
    found = extractor(to_float(images))
    torch.testing.assert_close(found, bare, rtol=1e-3, atol=1e-4)
    assert extractor(images[:4], precision="bf16").sub(bare[:4]).abs().mean() < 0.02

    sets = {"real": cifar10["train"][:60], "noise": degraded(cifar10["test"][:60])["noise"]}
    with pytest.warns(UserWarning, match="save all extracted features"):
        metric = KernelInceptionDistance(
            feature=_Only(theirs), subsets=10, subset_size=30, normalize=False
        )
    metric.update(sets["real"], real=True)
    metric.update(sets["noise"], real=False)
    torch.manual_seed(5)
    mean, std = metric.compute()
    ours = kernel_inception_distance(
        extractor(sets["noise"]), extractor(sets["real"]), subsets=10, subset_size=30, seed=5
    )
    assert ours.mean == pytest.approx(float(mean), rel=1e-3)
    assert ours.std == pytest.approx(float(std), rel=1e-3)
    assert 0.05 < ours.mean < 0.15
    # Test images as they are, in the cheaper arithmetic.
    half = {"precision": "bf16"}
    real, plain = (extractor(part, **half) for part in (sets["real"], cifar10["test"][:60]))
    same = kernel_inception_distance(plain, real, subsets=10, subset_size=30, seed=5)
    assert abs(same.mean) < 3 * same.std
    assert same.mean < ours.mean / 10


class _Only(torch.nn.Module):
    """torch-fidelity's network gives a tuple; torchmetrics wants a tensor."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network(images)[0]
