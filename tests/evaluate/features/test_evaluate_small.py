from __future__ import annotations

import hashlib
import json
import time
from importlib import resources

import numpy as np
import pytest
import torch
import train_small
from safetensors import safe_open
from safetensors.torch import load_file

from cascadezoo.data.pixels import to_float
from cascadezoo.evaluate.features import small
from cascadezoo.evaluate.features.base import load_extractor
from cascadezoo.evaluate.features.small_network import SmallNet
from cascadezoo.evaluate.metrics.kid import kernel_inception_distance

ASSETS = resources.files("cascadezoo.evaluate.features").joinpath("assets")


@pytest.fixture(scope="module")
def extractor():
    return load_extractor("small")


def test_the_bundled_file_is_small_and_has_the_recorded_digest(extractor):
    data = ASSETS.joinpath("small-v1.safetensors").read_bytes()
    assert len(data) < 2_000_000
    assert hashlib.sha256(data).hexdigest() == extractor.sha256
    assert extractor.describe() == {
        "name": "small",
        "version": "v1",
        "sha256": extractor.sha256,
        "num_features": 256,
        "input_size": 32,
    }


def test_the_card_agrees_with_the_file(tmp_path):
    card = ASSETS.joinpath("small-v1.md").read_text()
    with safe_open(str(ASSETS.joinpath("small-v1.safetensors")), "pt") as file:
        facts = file.metadata()
    share = float(facts["test_accuracy"])
    assert share >= 0.85
    assert f"{100 * share:.2f} %" in card
    assert small.WEIGHTS_SHA256 in card
    assert f"{facts['epochs']} epochs" in card


def test_the_accuracy_agrees_with_the_card(cifar10):
    network = small.load_network()
    images, labels = cifar10["test"][:2000], cifar10["test_labels"][:2000]
    # With 2000 images one standard error is 0.7 points.
    assert train_small.accuracy(network, images, labels) == pytest.approx(0.8648, abs=0.025)


@pytest.mark.slow
def test_ranks_degradations_like_inception(extractor, cifar10, degraded):
    real = extractor(cifar10["train"][:5000])
    kids = {
        name: kernel_inception_distance(extractor(images), real, subsets=20, subset_size=500)
        for name, images in degraded(cifar10["test"][:1000]).items()
    }
    means = {name: kid.mean for name, kid in kids.items()}
    assert abs(means["none"]) < 3 * kids["none"].std
    order = ["none", "blur 0.5", "bicubic", "blur 1.0", "noise", "uniform"]
    assert sorted(means, key=means.__getitem__) == order
    assert means["bicubic"] > 4 * means["blur 0.5"]
    assert means["noise"] > 1.1 * means["blur 1.0"]
    assert means["uniform"] > 3 * means["noise"]


def test_two_thousand_images_take_under_five_seconds(extractor):
    images = torch.randint(0, 256, (2000, 3, 32, 32), dtype=torch.uint8)
    start = time.process_time()
    extractor(images)
    # Processor time does not depend on the load of the machine: under 5 s on two cores.
    assert time.process_time() - start < 10


@pytest.mark.parametrize("size", [8, 28, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_size_and_one_channel(extractor, size, channels):
    images = torch.randint(0, 256, (3, channels, size, size), dtype=torch.uint8)
    features = extractor(images)
    assert features.shape == (3, 256)
    torch.testing.assert_close(extractor(images[1:2])[0], features[1], rtol=1e-4, atol=1e-5)


def test_larger_images_are_averaged_not_subsampled(extractor):
    plain = torch.randint(80, 176, (4, 3, 1, 1), dtype=torch.uint8).expand(-1, -1, 128, 128)
    sign = 1 - 2 * ((torch.arange(128)[:, None] + torch.arange(128)) % 2)
    checked = (plain + 70 * sign).to(torch.uint8)
    subsampled = checked[:, :, ::4, ::4]
    averaged, wrong = (extractor(x) - extractor(plain) for x in (checked, subsampled))
    assert averaged.norm() < 0.2 * wrong.norm()


def test_bf16_is_close_but_not_equal(extractor):
    images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    full, half = extractor(images), extractor(images, precision="bf16")
    assert half.dtype == torch.float32
    assert not torch.equal(full, half)
    torch.testing.assert_close(full, half, rtol=0.1, atol=0.05)


def test_folding_does_not_change_the_logits():
    torch.manual_seed(0)
    network = SmallNet(norm=True)
    images = torch.rand(32, 3, 32, 32) * 2 - 1
    network(images)
    before = network.eval()(images)
    torch.testing.assert_close(network.fold()(images), before, rtol=1e-4, atol=1e-5)
    assert set(network.state_dict()) == set(SmallNet().state_dict())


def test_augmented_images_depend_on_the_seed_and_are_valid(cifar10):
    images = to_float(cifar10["test"][:64])
    one, again, other = (
        train_small.augment(images, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert one.shape == images.shape
    assert one.abs().max() <= 1 + 2 * train_small.JITTER
    grey = (one[:, 0] - one[:, 1]).abs().amax(dim=(1, 2)) < 1e-6
    assert 0 < grey.sum() < 32


def test_the_training_command_writes_a_usable_file(tmp_path, capsys):
    rng = np.random.default_rng(0)
    arrays = {
        f"{split}_{what}": rng.integers(0, high, (256, *shape), dtype=np.uint8)
        for split in ("train", "test")
        for what, high, shape in (("images", 256, (32, 32, 3)), ("labels", 10, ()))
    }
    np.savez(tmp_path / "cifar.npz", **arrays)
    out = tmp_path / "out.safetensors"
    train_small.main([str(tmp_path / "cifar.npz"), str(out), "--epochs", "1"])
    result = json.loads(capsys.readouterr().out)
    assert result["bytes"] == out.stat().st_size < 2_000_000
    weights = load_file(out)
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    network = SmallNet()
    network.load_state_dict({name: value.float() for name, value in weights.items()})
    texture, content = network.features(torch.rand(64, 3, 32, 32) * 2 - 1).split([96, 160], dim=1)
    for part in (texture, content):
        assert part.square().mean().sqrt().item() == pytest.approx(0.5, rel=0.2)


@pytest.mark.slow
def test_training_learns(cifar10):
    network = train_small.train(
        cifar10["test"][:5120], cifar10["test_labels"][:5120], epochs=4, seed=0, progress=False
    )
    rest, labels = cifar10["test"][5120:6120], cifar10["test_labels"][5120:6120]
    assert train_small.accuracy(network, rest, labels) > 0.2  # chance is 0.1
