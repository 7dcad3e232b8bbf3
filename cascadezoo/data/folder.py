"""The dataset ``folder``: image files in a folder, optionally with one subfolder per class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from cascadezoo.errors import DataError
from cascadezoo.spec.configs import DataConfig, DataInfo

if TYPE_CHECKING:
    from pathlib import PurePath

    import numpy as np
    from numpy.typing import NDArray

    from cascadezoo.data.base import ImageData, Split
    from cascadezoo.data.folder_listing import Listing
    from cascadezoo.data.source import ImageSource

__all__ = ["FolderConfig", "load", "open_source"]

Path_ = Annotated[str, Field(min_length=1, max_length=4096)]


class FolderConfig(DataConfig):
    """PNG, JPEG, WebP, TIFF, BMP, GIF and PPM files, in the order of their names.

    Subfolders and links are included, but no folder twice. An image is rotated by its EXIF
    orientation, transparent parts become white, and it is centre-cropped to a square. Hidden files,
    and text, tables and archives by their suffix, are ignored; any other file that is not an image
    is an error.
    """

    paths: ClassVar[tuple[str, ...]] = ("path", "test_path")

    path: Path_
    """The folder; a relative path starts from the current directory."""
    test_path: Path_ | None = None
    """The folder of test images; None means no test images, unless `holdout` is set."""
    labels: bool | None = None
    """Whether the first subfolder is the class. None: yes if every image is in one of at least two.
    """
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
        """Size from the header of the first image, classes from the subfolders.

        Raises:
            DataError: the folder is missing or has no images, or its first image is not readable.
        """
        from cascadezoo.data.holdout import split_sizes
        from cascadezoo.data.image_decoder import square_size

        listing = _list(self)
        names = listing.classes
        train, test = split_sizes(len(listing.files), self.holdout)
        return DataInfo(
            size=self.resize or square_size(listing.root / listing.files[0]),
            channels=self.channels,
            num_classes=0 if names is None else len(names),
            class_names=names,
            train=train,
            test=test if self.test_path is None else None,
        )


def load(config: FolderConfig, split: Split) -> ImageData:
    """Read the images of a split.

    Args:
        config: the folder and its options.
        split: ``train`` or ``test``.

    Returns:
        uint8 [N, C, size, size], in the order of the files' names.

    Raises:
        DataError: the folder is missing, has no images or no such split; a file is not an image,
            is damaged, too large, or has another size than the first.
        ResourceError: the images are larger than the limit or the machine's memory.
    """
    from cascadezoo.data.base import ImageData
    from cascadezoo.data.folder_reader import read_images

    listing, files, labels = _files(config, split)
    images = read_images(listing.root, files, channels=config.channels, resize=config.resize)
    return ImageData(images, labels, split)


def open_source(config: FolderConfig, split: Split) -> ImageSource:
    """The encoded images of a split.

    Raises:
        DataError: the folder is missing, has no images or no such split, or its first image is not
            readable.
    """
    from cascadezoo.data.folder_source import FileSource

    listing, files, labels = _files(config, split)
    return FileSource(
        listing.root, files, labels, channels=config.channels, resize=config.resize, split=split
    )


def _files(
    config: FolderConfig, split: Split
) -> tuple[Listing, list[PurePath], NDArray[np.int64] | None]:
    """The files of a split, and their labels."""
    import numpy as np

    from cascadezoo.data.holdout import holdout_indices

    listing = _list(config)
    classes = listing.classes
    if config.test_path is not None:
        if split == "test":
            listing = _list_test(config, classes)
        rows = np.arange(len(listing.files))
    else:
        rows = holdout_indices(len(listing.files), config.holdout, split, source=config.path)
    files = [listing.files[row] for row in rows]
    labels = None
    if classes is not None:
        numbers = {name: number for number, name in enumerate(classes)}
        labels = np.array([numbers[file.parts[0]] for file in files], dtype=np.int64)
    return listing, files, labels


def _list(config: FolderConfig) -> Listing:
    from cascadezoo.data.files import data_path
    from cascadezoo.data.folder_listing import list_images

    return list_images(data_path(config.path), labels=config.labels)


def _list_test(config: FolderConfig, classes: tuple[str, ...] | None) -> Listing:
    """The test images; their classes must be classes of the training images."""
    from cascadezoo.data.files import data_path
    from cascadezoo.data.folder_listing import list_images

    root = data_path(config.test_path or "")
    listing = list_images(root, labels=classes is not None)
    extra = sorted(set(listing.classes or ()) - set(classes or ()))
    if extra:
        raise DataError(
            f"{root} has the class {extra[0]!r}, but {config.path} does not",
            hint="give both folders the same subfolders, or set data.config.labels to false",
            code="data-class-unknown",
            path=root,
            name=extra[0],
        )
    return listing
