"""The dataset ``webdataset``: images in tar archives, the shards of a WebDataset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from cascadezoo.spec.configs import DataConfig, DataInfo
from cascadezoo.util.limits import MOST_CLASSES

if TYPE_CHECKING:
    from cascadezoo.data.base import ImageData, Split
    from cascadezoo.data.source import ImageSource
    from cascadezoo.data.webdataset_source import ShardIndex

__all__ = ["WebDatasetConfig", "load", "open_source"]

Pattern = Annotated[str, Field(min_length=1, max_length=4096)]
Extension = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*$", max_length=40)]


class WebDatasetConfig(DataConfig):
    """Uncompressed tar files on this machine; nothing is extracted.

    Files with the same name up to the first dot after the last slash form a sample: `000.jpg` and
    `000.cls`. Shards are read in the order of their names, samples in the order of the shard.
    Images are treated as those of the dataset `folder`.
    """

    paths: ClassVar[tuple[str, ...]] = ("path", "test_path")

    path: Pattern
    """A tar file, a folder of `*.tar`, or a pattern: `train-*.tar`, `train-{000..099}.tar`."""
    test_path: Pattern | None = None
    """The shards of test images; None means no test images, unless `holdout` is set."""
    image: Annotated[list[Extension], Field(min_length=1, max_length=20)] = [
        *("jpg", "jpeg", "png", "webp", "ppm", "tif", "tiff", "bmp", "gif")
    ]
    """The extensions of images; a sample's image is its first file with one of them."""
    label: Extension | None = "cls"
    """The extension of the file with the class as a decimal number; None reads no labels."""
    classes: Annotated[int, Field(ge=1, le=MOST_CLASSES)] | None = None
    """Number of classes; None uses the highest label."""
    channels: Literal[1, 3] = 3
    """3 reads every image as RGB, 1 as grey."""
    resize: Annotated[int, Field(ge=1, le=16384)] | None = None
    """Resize the squares to this size in pixels; None requires images of one size."""
    holdout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of the images to use as test split."""

    @model_validator(mode="after")
    def _check_test(self) -> Self:
        if self.test_path is not None and self.holdout:
            raise ValueError("test_path and holdout both define a test split; give only one")
        return self

    def info(self) -> DataInfo:
        """Size from the header of the first image, classes from the labels of all samples.

        Raises:
            DataError: the shards are missing or have no usable images, or the first image is not
                readable.
        """
        from cascadezoo.data.webdataset_source import first_side

        index = _index(self, self.path)
        return DataInfo(
            size=self.resize or first_side(index),
            channels=self.channels,
            num_classes=_classes(self, index),
            train=index.count - round(index.count * self.holdout),
        )


def open_source(config: WebDatasetConfig, split: Split) -> ImageSource:
    """The encoded images of a split.

    Raises:
        DataError: the shards are missing or have no usable images, there is no such split, or the
            first image is not readable.
    """
    from cascadezoo.data.source import split_source
    from cascadezoo.data.webdataset_source import WebDatasetSource

    path = config.path
    if config.test_path is not None and split == "test":
        path = config.test_path
    index = _index(config, path)
    source = WebDatasetSource(
        index, path, channels=config.channels, resize=config.resize, split=split
    )
    if config.test_path is not None:
        return source
    return split_source(source, config.holdout, split)


def load(config: WebDatasetConfig, split: Split) -> ImageData:
    """Read the images of a split into memory.

    Returns:
        uint8 [N, C, size, size], in the order of the shards.

    Raises:
        DataError: as :func:`open_source`, or a shard or an image is damaged.
        ResourceError: the images are larger than the limit or the machine's memory.
    """
    from cascadezoo.data.streamed import resident

    return resident(open_source(config, split))


def _index(config: WebDatasetConfig, path: str) -> ShardIndex:
    from cascadezoo.data.webdataset_source import find_shards, index_shards

    return index_shards(find_shards(path), tuple(config.image), config.label)


def _classes(config: WebDatasetConfig, index: ShardIndex) -> int | None:
    if index.labels is None or config.classes is not None:
        return None if index.labels is None else config.classes
    return int(index.labels.max()) + 1
