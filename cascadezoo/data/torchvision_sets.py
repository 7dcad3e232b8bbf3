"""The datasets ``cifar10``, ``mnist`` and ``fashion-mnist``: downloaded and read by torchvision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from cascadezoo.data.fashion_tiny import FASHION_CLASSES
from cascadezoo.errors import DataError
from cascadezoo.spec.configs import DataConfig, DataInfo

if TYPE_CHECKING:
    from pathlib import Path

    from cascadezoo.data.base import ImageData, Split

__all__ = ["Cifar10Config", "FashionMnistConfig", "MnistConfig", "TorchvisionConfig", "load"]

ROOT_VARIABLE = "CASCADEZOO_DATA"
_TIMEOUT_SECONDS = 30.0


class TorchvisionConfig(DataConfig):
    """The location of a torchvision dataset."""

    paths: ClassVar[tuple[str, ...]] = ("root",)
    torchvision_name: ClassVar[str]
    files: ClassVar[str]
    facts: ClassVar[DataInfo]

    root: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """The folder of torchvision's datasets; None is $CASCADEZOO_DATA, or ~/.cache/cascadezoo/data.
    """
    download: bool = True
    """Download missing files."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Use only the first `limit` images of each split."""

    def info(self) -> DataInfo:
        """Size, channels and classes, known without the files."""
        facts = self.facts
        if self.limit is None or facts.train is None or facts.test is None:
            return facts
        train, test = min(facts.train, self.limit), min(facts.test, self.limit)
        return replace(facts, train=train, test=test)


class Cifar10Config(TorchvisionConfig):
    """CIFAR-10: 50,000 training and 10,000 test photographs of 10 classes, RGB, 32x32.

    Krizhevsky: Learning Multiple Layers of Features from Tiny Images, 2009.
    """

    torchvision_name = "CIFAR10"
    files = "cifar-10-python.tar.gz, unpacked (cifar-10-batches-py/...)"
    facts = DataInfo(
        size=32,
        channels=3,
        num_classes=10,
        class_names=(
            "airplane",
            "automobile",
            "bird",
            "cat",
            "deer",
            "dog",
            "frog",
            "horse",
            "ship",
            "truck",
        ),
        title="CIFAR-10",
        license="not stated by its authors, who ask to cite Krizhevsky 2009",
        hub_id="uoft-cs/cifar10",
        train=50_000,
        test=10_000,
    )


class MnistConfig(TorchvisionConfig):
    """MNIST: 60,000 training and 10,000 test images of handwritten digits, grey, 28x28.

    LeCun, Bottou, Bengio, Haffner: Gradient-Based Learning Applied to Document Recognition, 1998.
    """

    torchvision_name = "MNIST"
    files = "its four files, unpacked (MNIST/raw/train-images-idx3-ubyte, ...)"
    facts = DataInfo(
        size=28,
        channels=1,
        num_classes=10,
        class_names=("0", "1", "2", "3", "4", "5", "6", "7", "8", "9"),
        title="MNIST",
        license="CC-BY-SA-3.0",
        hub_id="ylecun/mnist",
        train=60_000,
        test=10_000,
    )


class FashionMnistConfig(TorchvisionConfig):
    """Fashion-MNIST: 60,000 training and 10,000 test images of clothing, grey, 28x28.

    Xiao, Rasul, Vollgraf: Fashion-MNIST, arXiv:1708.07747.
    """

    torchvision_name = "FashionMNIST"
    files = "its four files, unpacked (FashionMNIST/raw/train-images-idx3-ubyte, ...)"
    facts = DataInfo(
        size=28,
        channels=1,
        num_classes=10,
        class_names=FASHION_CLASSES,
        title="Fashion-MNIST",
        license="MIT",
        hub_id="zalando-datasets/fashion_mnist",
        train=60_000,
        test=10_000,
    )


def load(config: TorchvisionConfig, split: Split) -> ImageData:
    """Read a split; download the dataset first if it is missing.

    Args:
        config: one of the three configs of this module.
        split: ``train`` or ``test``.

    Returns:
        uint8 [N, C, H, W] and labels.

    Raises:
        DataError: the files are missing and cannot be downloaded, or they are damaged.
    """
    import numpy as np

    from cascadezoo.data.base import ImageData

    root = _root(config)
    dataset = _open(config, root, train=split == "train")
    images = np.asarray(dataset.data)
    labels = np.asarray(dataset.targets, dtype=np.int64)
    facts = config.facts
    images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    expected = (facts.channels, facts.size, facts.size)
    if images.shape[1:] != expected or not np.isin(labels, range(facts.num_classes or 0)).all():
        raise DataError(
            f"the files of {facts.title} in {root} contain images of {images.shape[1:]} with "
            f"labels up to {labels.max(initial=-1)}, which is another dataset",
            hint=f"delete {root / config.torchvision_name} to download it again",
            code="data-other-dataset",
            name=facts.title,
            path=root,
        )
    images, labels = images[: config.limit], labels[: config.limit]
    return ImageData(np.require(images, requirements=["C", "W"]), labels, split)


def _root(config: TorchvisionConfig) -> Path:
    import os

    from cascadezoo.data.files import data_path

    return data_path(config.root or os.environ.get(ROOT_VARIABLE) or "~/.cache/cascadezoo/data")


def _open(config: TorchvisionConfig, root: Path, *, train: bool) -> Any:
    """The torchvision dataset."""
    import pickle
    from http.client import HTTPException

    from filelock import FileLock
    from torchvision import datasets

    make = getattr(datasets, config.torchvision_name)
    # Exceptions of torchvision for missing or damaged files, and without a network.
    failures = (
        OSError,
        EOFError,
        RuntimeError,
        ValueError,
        TypeError,
        LookupError,
        AssertionError,
        HTTPException,
        pickle.UnpicklingError,
    )
    with _quiet_numpy():
        try:
            return make(str(root), train=train, download=False)
        except failures as error:
            if not config.download:
                raise _unavailable(config, root, error) from error
        try:
            root.mkdir(parents=True, exist_ok=True)
            # One process downloads while the other processes of the training wait.
            lock = FileLock(root / f".{config.torchvision_name}.lock")
            with lock, _time_limit():
                return make(str(root), train=train, download=True)
        except failures as error:
            raise _unavailable(config, root, error) from error


def _unavailable(config: TorchvisionConfig, root: Path, error: BaseException) -> DataError:
    reason = " ".join(str(error).split()) or type(error).__name__
    title = config.facts.title
    failure = "cannot be read from or downloaded to" if config.download else "cannot be read from"
    options = [
        f"put {config.files} into {root} and replace damaged files",
        f"set another folder in data.config.root or ${ROOT_VARIABLE}",
        "use the source npz with your own file, or shapes or fashion-tiny, which need no files",
    ]
    if not config.download:
        options.insert(0, "set data.config.download to true")
    return DataError(
        f"{title} {failure} {root}: {reason}",
        hint="; or ".join(options),
        code="data-torchvision-unavailable",
        name=title,
        path=root,
    )


@contextmanager
def _quiet_numpy() -> Iterator[None]:
    """Silence warnings about CIFAR-10's files, which an old numpy pickled."""
    import warnings

    import numpy as np

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


@contextmanager
def _time_limit() -> Iterator[None]:
    """Set a time limit for connections; torchvision sets none."""
    import socket

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
