"""The dataset ``fashion-tiny``: 2,000 real images of Fashion-MNIST that ship with the package.

Xiao, Rasul, Vollgraf: Fashion-MNIST, arXiv:1708.07747. MIT license; the notice is next to the
images in ``assets``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from cascadezoo.errors import DataError
from cascadezoo.spec.configs import DataConfig, DataInfo

if TYPE_CHECKING:
    from cascadezoo.data.base import ImageData, Split

__all__ = ["FASHION_CLASSES", "FashionTinyConfig", "load"]

FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_SIDE, _COLUMNS = 28, 50
_PER_CLASS = {"train": 160, "test": 40}


class FashionTinyConfig(DataConfig):
    """1,600 training images and 400 test images of Fashion-MNIST; no settings."""

    paths: ClassVar[tuple[str, ...]] = ()

    def info(self) -> DataInfo:
        """28x28 grey images of 10 classes."""
        return DataInfo(
            size=_SIDE,
            channels=1,
            num_classes=len(FASHION_CLASSES),
            class_names=FASHION_CLASSES,
            title="Fashion-MNIST, 2,000 images",
            license="MIT",
            hub_id="zalando-datasets/fashion_mnist",
            train=len(FASHION_CLASSES) * _PER_CLASS["train"],
            test=len(FASHION_CLASSES) * _PER_CLASS["test"],
        )


def load(config: FashionTinyConfig, split: Split) -> ImageData:
    """Read the images of a split from the package.

    Args:
        config: has no settings.
        split: ``train`` (1,600 images) or ``test`` (400 images).

    Returns:
        Grey images, uint8 [N, 1, 28, 28]; image ``i`` has label ``i % 10``.

    Raises:
        DataError: the file in the installed package is missing or damaged.
    """
    from importlib.resources import files

    import numpy as np
    from PIL import Image

    from cascadezoo.data.base import ImageData

    classes = len(FASHION_CLASSES)
    count = classes * sum(_PER_CLASS.values())
    asset = files("cascadezoo.data").joinpath("assets", "fashion_tiny.png")
    try:
        with asset.open("rb") as file, Image.open(file, formats=["PNG"]) as image:
            tiles = np.asarray(image).reshape(count // _COLUMNS, _SIDE, _COLUMNS, _SIDE)
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(
            f"cannot read the images of fashion-tiny from {asset}: {error}",
            hint="pip install --force-reinstall --no-deps cascadezoo",
            code="data-asset-unreadable",
            path=asset,
        ) from error
    tiles = tiles.swapaxes(1, 2).reshape(count, 1, _SIDE, _SIDE)
    first = 0 if split == "train" else classes * _PER_CLASS["train"]
    per_class = _PER_CLASS[split]
    by_class = tiles[first : first + classes * per_class].reshape(
        classes, per_class, 1, _SIDE, _SIDE
    )
    # The sheet is ordered by class, which compresses better; the data alternate between classes.
    images = by_class.swapaxes(0, 1).reshape(classes * per_class, 1, _SIDE, _SIDE)
    labels = np.arange(len(images), dtype=np.int64) % classes
    return ImageData(images, labels, split)
