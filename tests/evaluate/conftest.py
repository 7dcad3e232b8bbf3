from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cascadezoo.evaluate.features.base import FeatureExtractor

DEV = Path.home() / ".cache" / "cascadezoo-dev"


class MeansExtractor(FeatureExtractor):
    """Simple features: the mean of each channel in each quarter of the image."""

    name = "means"
    version = "v1"
    sha256 = "0" * 64
    num_features = 12
    input_size = 8
    batch_size = 16

    def features(self, images: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(images.float() / 255, 2).flatten(1)


@pytest.fixture
def means() -> FeatureExtractor:
    return MeansExtractor()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CASCADEZOO_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def cifar10() -> dict[str, Tensor]:
    """Real CIFAR-10: uint8 [N, 3, 32, 32] and labels."""
    path = DEV / "cifar10.npz"
    if not path.exists():
        pytest.skip("real CIFAR-10 is not cached: run get_cifar10.py of the development tools")
    with np.load(path) as arrays:
        images = {
            split: torch.from_numpy(arrays[f"{split}_images"]).permute(0, 3, 1, 2).contiguous()
            for split in ("train", "test")
        }
        return {**images, "test_labels": torch.from_numpy(arrays["test_labels"]).long()}


@pytest.fixture
def torch_home(monkeypatch) -> Path:
    """A TORCH_HOME with the genuine feature networks."""
    home = DEV / "torch_home"
    if not home.exists():
        pytest.skip(
            "real feature weights are not cached: run get_feature_weights.py of the "
            "development tools"
        )
    monkeypatch.setenv("TORCH_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def degraded() -> Callable[[Tensor], dict[str, Tensor]]:
    return degrade


def degrade(images: Tensor) -> dict[str, Tensor]:
    """Degraded versions of images, uint8 [N, 3, 32, 32], to judge extractors."""
    generator = torch.Generator().manual_seed(0)

    def bytes_of(floats: Tensor) -> Tensor:
        return floats.round().clamp(0, 255).to(torch.uint8)

    def blur(sigma: float) -> Tensor:
        reach = max(1, round(3 * sigma))
        kernel = torch.exp(-(torch.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
        kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
        soft = F.pad(images.float(), [reach] * 4, mode="reflect")
        soft = F.conv2d(soft, kernel, groups=3)
        return bytes_of(F.conv2d(soft, kernel.transpose(2, 3), groups=3))

    coarse = F.interpolate(images.float(), size=16, mode="area")
    noise = torch.randn(images.shape, generator=generator)
    return {
        "none": images,
        "blur 0.5": blur(0.5),
        "blur 1.0": blur(1.0),
        "bicubic": bytes_of(F.interpolate(coarse, size=32, mode="bicubic")),
        "noise": bytes_of(images.float() + 15 * noise),
        "uniform": torch.randint(0, 256, images.shape, generator=generator, dtype=torch.uint8),
    }
