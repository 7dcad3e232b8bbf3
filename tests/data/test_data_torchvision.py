"""torchvision's datasets: existing idx files, and errors for missing files."""

import hashlib
import pickle
import re
import struct
import time

import numpy as np
import pytest
from errors_help import raises
from torchvision.datasets import CIFAR10

from cascadezoo.data.torchvision_sets import (
    Cifar10Config,
    FashionMnistConfig,
    MnistConfig,
    load,
)
from cascadezoo.errors import DataError

FOLDERS = {MnistConfig: "MNIST", FashionMnistConfig: "FashionMNIST"}


def idx(array):
    """The format of the MNIST files: type 8 (bytes), sizes big-endian, then the bytes."""
    head = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


def place(root, config, counts=(30, 10), size=28, top=10):
    raw = root / FOLDERS[config] / "raw"
    raw.mkdir(parents=True)
    made = {}
    for part, count in zip(("train", "t10k"), counts, strict=True):
        images = np.random.default_rng(count).integers(0, 256, (count, size, size))
        labels = np.arange(count) % top
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(images))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))
        made[part] = images, labels
    return made


@pytest.mark.parametrize("config", list(FOLDERS))
@pytest.mark.parametrize("download", [True, False])
def test_existing_files_are_read(tmp_path, config, download):
    made = place(tmp_path, config)
    for split, part in (("train", "train"), ("test", "t10k")):
        data = load(config(root=str(tmp_path), download=download), split)
        images, labels = made[part]
        assert (data.images[:, 0] == images).all()
        assert data.labels.tolist() == labels.tolist()
        assert data.images.flags.writeable
        assert data.split == split
    assert len(load(config(root=str(tmp_path), limit=7), "train")) == 7


def test_reads_cifar10(tmp_path, monkeypatch):
    """Files of CIFAR-10's format; their checksums stand in for those of the real files."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()

    def put(name, content):
        body = pickle.dumps(content)
        (folder / name).write_bytes(body)
        return [name, hashlib.md5(body).hexdigest()]

    def batch(seed, count):
        values = np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)
        return {"data": values, "labels": [(seed + row) % 10 for row in range(count)]}

    parts = [batch(seed, 4) for seed in range(1, 6)]
    test = batch(6, 3)
    lists = [put(f"data_batch_{number}", part) for number, part in enumerate(parts, 1)]
    monkeypatch.setattr(CIFAR10, "train_list", lists)
    monkeypatch.setattr(CIFAR10, "test_list", [put("test_batch", test)])
    _, md5 = put("batches.meta", {"label_names": list(Cifar10Config.facts.class_names)})
    monkeypatch.setitem(CIFAR10.meta, "md5", md5)

    config = Cifar10Config(root=str(tmp_path), download=False)
    data = load(config, "train")
    wanted = np.concatenate([part["data"] for part in parts]).reshape(20, 3, 32, 32)
    assert (data.images == wanted).all()  # the files hold red, green and blue planes
    assert data.images.flags.c_contiguous
    assert data.labels.tolist() == [label for part in parts for label in part["labels"]]
    assert (load(config, "test").images == test["data"].reshape(3, 3, 32, 32)).all()


def test_root_from_the_environment(tmp_path, monkeypatch):
    place(tmp_path, MnistConfig)
    monkeypatch.setenv("CASCADEZOO_DATA", str(tmp_path))
    assert len(load(MnistConfig(download=False), "train")) == 30


def test_root_in_the_home_folder(tmp_path, monkeypatch):
    place(tmp_path / ".cache" / "cascadezoo" / "data", MnistConfig)
    monkeypatch.delenv("CASCADEZOO_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(load(MnistConfig(download=False), "test")) == 10


@pytest.mark.parametrize("config", [Cifar10Config, *FOLDERS])
def test_without_download(tmp_path, config):
    fields = {"name": config.facts.title, "path": tmp_path / "none"}
    with raises(DataError, "data-torchvision-unavailable", **fields) as caught:
        load(config(root=str(tmp_path / "none"), download=False), "train")
    for word in ("data.config.download", "CASCADEZOO_DATA", "npz", "fashion-tiny"):
        assert word in caught.value.hint
    assert not (tmp_path / "none").exists()


@pytest.fixture
def dead_network(monkeypatch):
    """A proxy that refuses every connection, as without a network."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("dead_network")
@pytest.mark.parametrize("config", [Cifar10Config, *FOLDERS])
def test_offline(tmp_path, config, capfd):
    start = time.monotonic()
    fields = {"name": config.facts.title, "path": tmp_path}
    with raises(DataError, "data-torchvision-unavailable", **fields) as caught:
        load(config(root=str(tmp_path)), "train")
    assert time.monotonic() - start < 20
    assert re.search("urlopen error|Connection refused", caught.value.what)
    assert "\n" not in caught.value.what
    assert "fashion-tiny" in caught.value.hint
    assert capfd.readouterr().out == ""


@pytest.mark.usefixtures("dead_network")
def test_an_impossible_folder_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with raises(DataError, "data-torchvision-unavailable", name="MNIST", path="data"):
        load(MnistConfig(root=str(tmp_path / "file" / "data")), "train")


@pytest.mark.usefixtures("dead_network")
@pytest.mark.parametrize("keep", [0, 3, 10, 500])
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"])
def test_cut_files(tmp_path, keep, name):
    place(tmp_path, MnistConfig, counts=(600, 10))
    path = tmp_path / "MNIST" / "raw" / name
    path.write_bytes(path.read_bytes()[:keep])
    with raises(DataError, "data-torchvision-unavailable", name="MNIST") as caught:
        load(MnistConfig(root=str(tmp_path)), "train")
    assert caught.value.exit_code == 2


def test_files_of_another_dataset(tmp_path):
    place(tmp_path, MnistConfig, size=32)
    with raises(DataError, "data-other-dataset", name="MNIST"):
        load(MnistConfig(root=str(tmp_path)), "train")
    place(tmp_path / "more", MnistConfig, top=12)
    with raises(DataError, "data-other-dataset", name="MNIST", path="more"):
        load(MnistConfig(root=str(tmp_path / "more")), "train")


def test_facts():
    facts = {config: config().info() for config in (Cifar10Config, *FOLDERS)}
    assert [facts[c].hub_id for c in facts] == [
        "uoft-cs/cifar10",
        "ylecun/mnist",
        "zalando-datasets/fashion_mnist",
    ]
    for info in facts.values():
        assert info.num_classes == len(info.class_names) == 10
        assert info.title
        assert info.license
    assert (facts[Cifar10Config].size, facts[Cifar10Config].channels) == (32, 3)
