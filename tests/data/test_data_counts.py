"""Datasets state how many images each split has, before any image is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cascadezoo.data import fashion_tiny, folder, npz, shapes
from cascadezoo.data.fashion_tiny import FashionTinyConfig
from cascadezoo.data.folder import FolderConfig
from cascadezoo.data.npz import NpzConfig
from cascadezoo.data.shapes import ShapesConfig
from cascadezoo.data.torchvision_sets import Cifar10Config, MnistConfig
from cascadezoo.errors import DataError


@pytest.fixture(autouse=True)
def _data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    images = np.zeros((20, 4, 4), np.uint8)
    np.savez("one.npz", images=images)
    np.savez("two.npz", train_images=images, test_images=images[:6])
    Path("pictures").mkdir()
    for index in range(10):
        Image.new("L", (4, 4)).save(f"pictures/{index}.png")


@pytest.mark.parametrize(
    ("module", "config"),
    [
        (npz, NpzConfig(path="one.npz")),
        (npz, NpzConfig(path="one.npz", limit=7)),
        (npz, NpzConfig(path="one.npz", holdout=0.3)),
        (npz, NpzConfig(path="one.npz", holdout=0.3, limit=5)),
        (npz, NpzConfig(path="two.npz")),
        (npz, NpzConfig(path="two.npz", limit=7)),
        (folder, FolderConfig(path="pictures")),
        (folder, FolderConfig(path="pictures", holdout=0.25)),
        (shapes, ShapesConfig(size=8, count=9, test_count=4)),
        (fashion_tiny, FashionTinyConfig()),
    ],
)
def test_the_stated_numbers_are_those_of_the_images(module, config) -> None:
    info = config.info()
    assert info.train == len(module.load(config, "train"))
    if info.test:
        assert info.test == len(module.load(config, "test"))
    else:
        assert info.test == 0
        with pytest.raises(DataError, match="no test split"):
            module.load(config, "test")


def test_a_second_folder_is_not_counted() -> None:
    assert FolderConfig(path="pictures", test_path="pictures").info().test is None


def test_limits_of_known_datasets() -> None:
    assert (MnistConfig().info().train, MnistConfig().info().test) == (60_000, 10_000)
    info = Cifar10Config(limit=20_000).info()
    assert (info.train, info.test) == (20_000, 10_000)
