"""The dataset ``huggingface``: images of a dataset of the library ``datasets``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from cascadezoo.spec.configs import DataConfig, DataInfo
from cascadezoo.util.limits import MOST_CLASSES

if TYPE_CHECKING:
    from cascadezoo.data.base import ImageData, Split
    from cascadezoo.data.source import ImageSource, SequentialSource

__all__ = ["HuggingFaceConfig", "load", "open_source"]

Column = Annotated[str, Field(min_length=1, max_length=200)]


class HuggingFaceConfig(DataConfig):
    """A dataset of the Hub, or a folder that `save_to_disk` or parquet files fill.

    Images must be stored in the dataset: a column of the feature `Image` with bytes. Labels are
    integers or a `ClassLabel`. It needs `pip install 'cascadezoo[datasets]'`. Images are treated as
    those of the dataset `folder`. Code of a dataset is never run.
    """

    paths: ClassVar[tuple[str, ...]] = ("path",)

    path: Annotated[str, Field(min_length=1, max_length=4096)]
    """`org/name` on the Hub, or a folder that exists; a relative one starts from the current
    directory."""
    name: Column | None = None
    """The configuration of the dataset."""
    revision: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """The branch, tag or commit on the Hub."""
    train: Column = "train"
    """The name of the training split."""
    test: Column | None = None
    """The name of the test split; None means no test images, unless `holdout` is set."""
    image: Column = "image"
    """The column of images."""
    label: Column | None = None
    """The column of labels; None trains without labels."""
    keep: Literal["mapped", "memory", "stream"] = "mapped"
    """`mapped` maps the downloaded dataset into memory; `memory` reads all encoded images into
    memory; `stream` downloads nothing in advance and reads the dataset from the start."""
    count: Annotated[int, Field(ge=1, le=10_000_000_000)] | None = None
    """Use only the first `count` training images. A stream that does not state its number of
    images needs it."""
    classes: Annotated[int, Field(ge=1, le=MOST_CLASSES)] | None = None
    """Number of classes; None uses that of a `ClassLabel`."""
    channels: Literal[1, 3] = 3
    """3 reads every image as RGB, 1 as grey."""
    resize: Annotated[int, Field(ge=1, le=16384)] | None = None
    """Resize the squares to this size in pixels; None requires images of one size."""
    holdout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of the images to use as test split; not for a stream."""

    def info(self) -> DataInfo:
        """What the config states, and what the file of a saved dataset states.

        The library ``datasets`` is not imported, so the size is unknown without `resize`.

        Raises:
            DataError: the file of the saved dataset is damaged.
        """
        from cascadezoo.data.huggingface_info import stored_info

        stored = stored_info(self)
        count = self.count or stored.count
        if count is not None:
            count -= round(count * self.holdout)
        return DataInfo(
            size=self.resize,
            channels=self.channels,
            num_classes=self.classes or (stored.num_classes if self.label else None),
            class_names=stored.names if self.label and self.classes is None else None,
            hub_id=None if stored.local else self.path,
            train=count,
        )


def open_source(config: HuggingFaceConfig, split: Split) -> ImageSource | SequentialSource:
    """The encoded images of a split.

    Raises:
        DataError: ``datasets`` is not installed, the dataset cannot be loaded, or has no such
            split or column, or its first image is not readable.
    """
    from cascadezoo.data.huggingface_source import open_split

    return open_split(config, split)


def load(config: HuggingFaceConfig, split: Split) -> ImageData:
    """Read the images of a split into memory.

    Returns:
        uint8 [N, C, size, size], in the order of the dataset.

    Raises:
        DataError: as :func:`open_source`, or an image is damaged.
        ResourceError: the images are larger than the limit or the machine's memory.
    """
    from cascadezoo.data.streamed import resident

    return resident(open_source(config, split))
