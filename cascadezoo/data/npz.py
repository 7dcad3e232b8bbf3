"""The dataset ``npz``: uint8 images, optionally with labels, in one ``.npz`` file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from cascadezoo.errors import DataError
from cascadezoo.spec.configs import DataConfig, DataInfo
from cascadezoo.util.limits import LARGEST_CLASS_NAMES, LARGEST_LABELS, MOST_CLASSES

if TYPE_CHECKING:
    from cascadezoo.data.base import ImageData, Split
    from cascadezoo.data.npz_reader import NpzReader

__all__ = ["NpzConfig", "load"]

Key = Annotated[str, Field(min_length=1, max_length=200)]

_USUAL_NAMES = (
    ("train_images", "train_labels", "test_images", "test_labels"),
    ("x_train", "y_train", "x_test", "y_test"),
    ("images", "labels", "test_images", "test_labels"),
    ("arr_0", "arr_1", None, None),
)
_CLASS_NAMES = "class_names"


class NpzConfig(DataConfig):
    """A file made with ``numpy.savez``.

    Images are uint8: [N, H, W], [N, H, W, C] or, if unambiguous, [N, C, H, W], with 1 or 3 channels
    and H = W. Labels are integers from 0, [N]. An optional array ``class_names`` of strings names
    the classes. Arrays are searched under these names, in this order:
    ``train_images, train_labels, test_images, test_labels``; ``x_train, y_train, x_test, y_test``;
    ``images, labels, test_images, test_labels``; ``arr_0, arr_1``.
    """

    paths: ClassVar[tuple[str, ...]] = ("path",)

    path: Annotated[str, Field(min_length=1, max_length=4096)]
    """The file; a relative path starts from the current directory."""
    images: Key | None = None
    """The array of training images; None looks for the usual names."""
    labels: Key | None = None
    """The array of their labels; None looks for the usual name, unless `images` is given."""
    test_images: Key | None = None
    """The array of test images; None looks for the usual name, unless `images` is given."""
    test_labels: Key | None = None
    """The array of their labels; None looks for the usual name, unless `images` is given."""
    layout: Literal["auto", "NHWC", "NCHW"] = "auto"
    """The order of the dimensions of a 4D array; `auto` derives it from the channels."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Use only the first `limit` images of each split."""
    holdout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of the images to use as test split, if the file has no test images."""

    def info(self) -> DataInfo:
        """Size and channels from the header of the images; classes from names or labels.

        Raises:
            DataError: the file is missing or damaged, or has unsupported content.
        """
        from cascadezoo.data.holdout import split_sizes

        with _open(self) as file:
            keys = _keys(self, file)
            shape = _image_shape(self, file, keys.images)
            counts = split_sizes(shape.count, self.holdout)
            if keys.test_images is not None:
                counts = shape.count, _image_shape(self, file, keys.test_images).count
            train, test = (min(count, self.limit or count) for count in counts)
            names = _class_names(file) if keys.labels else None
            return DataInfo(
                size=shape.size,
                channels=shape.channels,
                num_classes=_num_classes(file, keys, names) or 0,
                class_names=names,
                train=train,
                test=test,
            )


def load(config: NpzConfig, split: Split) -> ImageData:
    """Read a split.

    Args:
        config: the file and its arrays.
        split: ``train`` or ``test``.

    Returns:
        The images as uint8 [N, C, H, W], in the order of the file.

    Raises:
        DataError: the file is missing or damaged, has unsupported content, or no such split.
        ResourceError: the images are larger than the limit or the machine's memory.
    """
    import numpy as np

    from cascadezoo.data.base import ImageData
    from cascadezoo.data.holdout import holdout_indices
    from cascadezoo.data.memory import require_data

    with _open(config) as file:
        keys = _keys(config, file)
        own_test = keys.test_images is not None
        if own_test and config.holdout:
            raise DataError(
                f"{config.path} already has test images ({keys.test_images!r}), so holdout is "
                "not possible",
                hint="remove data.config.holdout",
                code="data-holdout-with-test",
                path=config.path,
            )
        images_key, labels_key = keys.images, keys.labels
        if split == "test" and keys.test_images is not None:
            images_key, labels_key = keys.test_images, keys.test_labels
        shape = _image_shape(config, file, images_key)
        # The holdout is drawn from all images; without it the first images are enough.
        count = shape.count if config.holdout else min(shape.count, config.limit or shape.count)
        require_data(
            count * shape.channels * shape.size**2,
            f"{config.path}: {count:,} images {images_key!r}",
            hint="set data.config.limit to use fewer",
        )
        part: Split = "train" if own_test else split
        rows = holdout_indices(count, config.holdout, part, source=config.path)[: config.limit]
        images = file.read(images_key, int(rows[-1]) + 1)
        if len(rows) != len(images):
            images = images[rows]
        if images.ndim == 3:
            images = images[:, None]
        elif shape.channels_last:
            images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        labels = None
        if labels_key is not None:
            _num_classes(file, keys, _class_names(file))
            _label_range(file, labels_key, images_key)
            labels = file.read(labels_key).astype("int64")[rows]
        return ImageData(images, labels, split)


@dataclass(frozen=True, slots=True)
class _Keys:
    images: str
    labels: str | None
    test_images: str | None
    test_labels: str | None


@dataclass(frozen=True, slots=True)
class _Shape:
    count: int
    size: int
    channels: int
    channels_last: bool


def _open(config: NpzConfig) -> NpzReader:
    from cascadezoo.data.files import data_path
    from cascadezoo.data.npz_reader import NpzReader

    return NpzReader(data_path(config.path))


def _keys(config: NpzConfig, file: NpzReader) -> _Keys:
    """The arrays to use: those of the config, or the first usual names that exist."""
    configured = (config.images, config.labels, config.test_images, config.test_labels)
    for key in configured:
        if key is not None and key not in file:
            raise DataError(
                f"{config.path} has no array {key!r}",
                hint=f"it has {file.listed}",
                code="data-no-array",
                path=config.path,
                name=key,
            )
    selected: tuple[str | None, ...] = configured
    if config.images is None:
        for names in _USUAL_NAMES:
            if names[0] in file:
                usual = (key if key is not None and key in file else None for key in names)
                selected = tuple(key or other for key, other in zip(configured, usual, strict=True))
                break
    images, labels, test_images, test_labels = selected
    if images is None:
        raise DataError(
            f"{config.path} has no array with a usual name for images; it has {file.listed}",
            hint="set data.config.images and data.config.labels to the names of the arrays",
            code="data-no-images-array",
            names=tuple(file.keys),
            path=config.path,
        )
    if test_images is None and test_labels is not None:
        raise DataError(
            f"{config.path} has test labels {test_labels!r} but no test images",
            hint="set data.config.test_images to the name of the array",
            code="data-labels-without-images",
            path=config.path,
            name=test_labels,
        )
    return _Keys(images, labels, test_images, test_labels)


def _image_shape(config: NpzConfig, file: NpzReader, key: str) -> _Shape:
    header = file.header(key)
    where = f"{config.path}: images {key!r}"
    if header.dtype != "uint8":
        raise DataError(
            f"{where} are {header.dtype}, not uint8",
            hint="save them as numbers from 0 to 255: (images * 255).round().astype('uint8')",
            code="data-array-not-uint8",
            dtype=str(header.dtype),
            path=config.path,
            name=key,
        )
    shape = header.shape
    if len(shape) not in (3, 4):
        raise DataError(
            f"{where} have shape {list(shape)}",
            hint="save them as [N, H, W], [N, H, W, C] or [N, C, H, W]",
            code="data-array-dims",
            shape=shape,
            path=config.path,
            name=key,
        )
    if len(shape) == 3:
        channels_last, channels, (count, height, width) = True, 1, shape
    else:
        channels_last = _channels_last(config, shape, where)
        count, *rest = shape
        height, width, channels = rest if channels_last else (*rest[1:], rest[0])
    if channels not in (1, 3):
        raise DataError(
            f"{where} have shape {list(shape)}: {channels} channels, not 1 or 3",
            hint="remove an alpha channel; set data.config.layout if these are not the channels",
            code="data-array-channels",
            shape=shape,
            path=config.path,
            name=key,
        )
    if 0 in shape:
        raise DataError(
            f"{where} have shape {list(shape)}: they are empty",
            code="data-array-empty",
            shape=shape,
            path=config.path,
            name=key,
        )
    if height != width:
        raise DataError(
            f"{where} are {height}x{width}, not square",
            hint="crop them before saving",
            code="data-array-not-square",
            shape=shape,
            path=config.path,
            name=key,
        )
    return _Shape(count, height, channels, channels_last)


def _channels_last(config: NpzConfig, shape: tuple[int, ...], where: str) -> bool:
    if config.layout != "auto":
        return config.layout == "NHWC"
    first, last = shape[1] in (1, 3), shape[3] in (1, 3)
    if first == last:
        raise DataError(
            f"{where} have the ambiguous shape {list(shape)}",
            hint="set data.config.layout to NHWC or NCHW (1 or 3 channels)",
            code="data-array-layout",
            shape=shape,
            path=config.path,
        )
    return last


def _label_range(file: NpzReader, key: str, images_key: str) -> tuple[int, int]:
    """The lowest and the highest label of an array of images, without keeping the labels."""
    from cascadezoo.data.memory import require_data

    header, count = file.header(key), file.header(images_key).shape[0]
    where = f"{file.path}: labels {key!r}"
    if header.dtype.kind not in "iu":
        raise DataError(
            f"{where} are {header.dtype}, not integers",
            hint="save the number of each image's class, from 0",
            code="data-labels-not-whole",
            dtype=str(header.dtype),
            path=file.path,
            name=key,
        )
    if header.shape != (count,):
        raise DataError(
            f"{where} have shape {list(header.shape)}, but {images_key!r} has {count} images",
            hint="save one label for each image, as [N]",
            code="data-labels-shape",
            shape=header.shape,
            path=file.path,
            name=key,
        )
    require_data(
        header.nbytes,
        where,
        hint="save them as uint8 or uint16",
        default=LARGEST_LABELS,
    )
    blocks = [(int(block.min()), int(block.max())) for block in file.blocks(key)]
    low, high = min(low for low, _ in blocks), max(high for _, high in blocks)
    if low < 0 or high > 2**31 - 1:
        raise DataError(
            f"{where} are in [{low}, {high}]",
            hint="number the classes 0, 1, 2, and so on",
            code="data-labels-negative",
            high=high,
            low=low,
            path=file.path,
            name=key,
        )
    return low, high


def _class_names(file: NpzReader) -> tuple[str, ...] | None:
    if _CLASS_NAMES not in file:
        return None
    from cascadezoo.data.memory import require_data

    header = file.header(_CLASS_NAMES)
    is_list = header.dtype.kind == "U" and header.dtype.itemsize > 0 and len(header.shape) == 1
    if not is_list or header.shape[0] > MOST_CLASSES:
        raise DataError(
            f"{file.path}: {_CLASS_NAMES!r} is {header.dtype} {list(header.shape)}, not a list of "
            f"at most {MOST_CLASSES:,} strings",
            hint="save it as numpy.array(['first', 'second', ...])",
            code="data-names-form",
            dtype=str(header.dtype),
            path=file.path,
        )
    require_data(
        header.nbytes,
        f"{file.path}: {_CLASS_NAMES!r}",
        hint="give the classes shorter names",
        default=LARGEST_CLASS_NAMES,
    )
    try:
        names = tuple(str(name) for name in file.read(_CLASS_NAMES))
        "".join(names).encode()
    except ValueError as error:  # damaged bytes may not be text
        raise DataError(
            f"{file.path}: {_CLASS_NAMES!r} contains invalid text",
            code="data-names-not-text",
            path=file.path,
        ) from error
    return names


def _num_classes(file: NpzReader, keys: _Keys, names: tuple[str, ...] | None) -> int | None:
    """Number of classes of the labels of both splits; None without labels."""
    highest = -1
    for labels, images in ((keys.labels, keys.images), (keys.test_labels, keys.test_images)):
        if labels is not None and images is not None:
            highest = max(highest, _label_range(file, labels, images)[1])
    if highest < 0:
        return None
    if names is not None and highest >= len(names):
        raise DataError(
            f"{file.path}: a label is {highest}, but {_CLASS_NAMES!r} has {len(names)} names",
            hint="give every class a name, or remove class_names",
            code="data-names-too-few",
            highest=highest,
            path=file.path,
        )
    return highest + 1 if names is None else len(names)
