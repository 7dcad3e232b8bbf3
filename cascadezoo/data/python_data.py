"""Images that a program passes: arrays, tensors, map-style datasets, sources. Reads them once."""

from __future__ import annotations

import hashlib
import operator
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from cascadezoo.data.base import ImageData, Split
from cascadezoo.data.decoder import ImageForm
from cascadezoo.data.memory import require_data
from cascadezoo.data.picture_files import DAMAGE, MODES
from cascadezoo.data.preparation import prepare, require_labels
from cascadezoo.data.python_config import LARGEST_SIDE, GivenSplit, PythonConfig, not_given
from cascadezoo.data.source import ImageSource, SequentialSource
from cascadezoo.data.split import TOO_LARGE
from cascadezoo.data.streamed import StreamedData, resident
from cascadezoo.errors import DataError, InputError, ResourceError
from cascadezoo.spec import ResolvedSpec
from cascadezoo.spec.configs import DataConfig
from cascadezoo.util.limits import MOST_CLASSES

__all__ = ["DataInput", "GivenData", "read_given"]

DataInput: TypeAlias = Any
"""Images, or a mapping with the images of ``train`` and ``test``.

Images are

- a map-style dataset, for example a ``torch.utils.data.Dataset`` or a list: items are
  ``(image, label)`` or an image;
- a ``datasets.Dataset`` of Hugging Face with one column of images, and at most one ``ClassLabel``,
  or a column ``label``;
- an array or tensor of images, or the pair ``(images, labels)`` of them: [N, H, W], [N, H, W, C] or
  [N, C, H, W];
- an :class:`~cascadezoo.ImageData`, or an :class:`~cascadezoo.ImageSource`;
- the config of a registered dataset, which replaces the ``data.source`` of the spec.

An image is a PIL image, or an array or tensor [H, W], [C, H, W] or [H, W, C] with 1 or 3 channels:
uint8, or floating in [0, 1] or in [-1, 1]. Floats are in [-1, 1] if any value of any image is
negative, and in [0, 1] otherwise.
"""

_SLACK = 1e-3
"""Values may be this far outside of the range of floats, because of rounding."""

Pixels = NDArray[np.uint8] | NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class GivenData:
    """Images that were passed, by split.

    Args:
        splits: the images in their own size, or a source of encoded images.
        class_names: the names of the labels; None if they are unknown.
    """

    splits: Mapping[Split, ImageData | ImageSource | SequentialSource]
    class_names: tuple[str, ...] | None = None

    def config(self) -> PythonConfig:
        """The config of the dataset ``python`` for these images.

        Raises:
            DataError: the splits differ in size or channels, or their size, channels or labels are
                beyond what a cascade can have.
        """
        shapes = {split: _shape(data) for split, data in self.splits.items()}
        if len(set(shapes.values())) > 1:
            raise DataError(
                "the train images are {}x{} with {} channels, the test images {}x{} with {}".format(
                    *_reordered(shapes["train"]), *_reordered(shapes["test"])
                ),
                hint="give both in the same size and channels",
                code="data-splits-differ",
            )
        channels, height, width = shape = next(iter(shapes.values()))
        if channels not in (1, 3) or max(height, width) > LARGEST_SIDE:
            raise DataError(
                f"the images are {_size(shape)} with {channels} channels",
                hint=f"use 1 or 3 channels, and at most {LARGEST_SIDE} pixels a side",
                code="data-images-form",
                shape=shape,
            )
        rows = {
            split: GivenSplit(count=len(data), digest=_digest(data))
            for split, data in self.splits.items()
        }
        return PythonConfig(
            height=height, width=width, channels=channels, classes=self._classes(), **rows
        )

    def _classes(self) -> int | None:
        if any(isinstance(d, SequentialSource) and d.labelled for d in self.splits.values()):
            return None  # the labels of a stream are known when it was read
        labels = [_labels(data) for data in self.splits.values()]
        known = [row for row in labels if row is not None and len(row)]
        if not known:
            return 0
        most = max(0, *(int(row.max()) + 1 for row in known))
        if most > MOST_CLASSES:
            raise DataError(
                f"the labels go up to {most - 1:,}, but there may be {MOST_CLASSES:,} classes",
                hint="number the classes 0, 1, 2, and so on",
                code="data-labels-out-of-range",
                high=most - 1,
            )
        if self.class_names is None:
            return most
        if most > len(self.class_names):
            raise DataError(
                f"the labels go up to {most - 1}, but there are only {len(self.class_names)} "
                "class names",
                hint="give a name for each class, or correct the labels",
                code="data-labels-out-of-range",
                high=most - 1,
            )
        return len(self.class_names)

    def split(self, resolved: ResolvedSpec, split: Split) -> ImageData:
        """The images of a split in the form of a cascade.

        Args:
            resolved: the spec.
            split: the part of the dataset.

        Returns:
            As :func:`~cascadezoo.data.split.load_split`.

        Raises:
            DataError: the split was not given, or its images or labels do not fit the cascade.
            ResourceError: the images are too large.
        """
        given = self.splits.get(split)
        if given is None:
            not_given(PythonConfig(), split)
        spec, image = resolved.spec.data, resolved.image
        if not isinstance(given, ImageData):
            form = ImageForm(image.size, image.channels, spec.fit, resolved.num_classes)
            if spec.streaming is True or (spec.streaming == "auto" and spec.stream.max_bad > 0):
                return StreamedData(given, form, spec.stream)
            try:
                data = resident(given)
            except ResourceError as error:
                if spec.streaming != "auto" or error.code not in TOO_LARGE:
                    raise
                return StreamedData(given, form, spec.stream)
        elif spec.streaming is True:
            raise DataError(
                "images that are already in memory cannot be streamed",
                hint="set data.streaming to auto or false, or pass a cascadezoo.ImageSource",
                code="data-not-streamable",
            )
        else:
            data = given
        data = prepare(data, size=image.size, channels=image.channels, fit=spec.fit)
        if resolved.num_classes is not None:
            require_labels(data, resolved.num_classes)
        return data

    def require(self, recorded: PythonConfig) -> None:
        """Check that these images are the recorded ones, as far as any are recorded.

        Raises:
            DataError: they are others.
        """
        for split, data in self.splits.items():
            row = recorded.train if split == "train" else recorded.test
            if row is not None and row.digest != _digest(data):
                given = GivenSplit(count=len(data), digest=_digest(data))
                raise DataError(
                    f"the {split} images are not those of the spec: {given} are given, the spec "
                    f"states {row}",
                    hint="pass the same images in the same order, without random transforms; for a "
                    "training on other images remove data.config from the spec",
                    code="data-other-images",
                    split=split,
                    given=given.digest,
                    needed=row.digest,
                )


def read_given(data: DataInput, *, size: int | None = None, alone: Split = "train") -> GivenData:
    """Read images that were passed to a function.

    Args:
        data: see :data:`DataInput`.
        size: the side of the cascade's images; images of different sizes are cropped to their
            centre square and resized to it.
        alone: the split that data without splits are.

    Raises:
        DataError: the images or labels have an unsupported type, shape or range, or cannot be
            read.
        InputError: ``data`` is nothing that contains images.
        ResourceError: the images are larger than the limit or the machine's memory.
    """
    parts = dict(data) if isinstance(data, Mapping) else {alone: data}
    parts = {split: part for split, part in parts.items() if part is not None}
    unknown = [name for name in parts if name not in get_args(Split)]
    if unknown or not parts:
        shown = ", ".join(map(repr, unknown)) or "nothing"
        raise InputError(
            f"data has {shown} instead of the splits 'train' and 'test'",
            hint='pass data={"train": ..., "test": ...}; arrays as the pair (images, labels)',
            code="input-data-splits",
            names=tuple(map(str, unknown)),
        )
    read = {split: _read(part, split) for split, part in parts.items()}
    raws = [part for part in read.values() if isinstance(part, _Raw)]
    signed = any(part.low < 0 for part in raws)
    names = {part.names for part in raws if part.names is not None}
    if len(names) > 1:
        raise DataError(
            "the class names of the train images differ from those of the test images",
            hint="number the classes of both equally",
            code="data-splits-differ",
        )
    splits = {
        split: _finished(part, split, size, signed=signed) if isinstance(part, _Raw) else part
        for split, part in read.items()
    }
    return GivenData(splits, names.pop() if names else None)


# --- what was passed


@dataclass(slots=True)
class _Raw:
    """Images as they were passed, each [C, H, W]."""

    images: Sequence[Pixels]
    labels: list[int] | None = None
    names: tuple[str, ...] | None = None
    low: float = field(init=False)

    def __post_init__(self) -> None:
        floats = [float(image.min()) for image in self.images if image.dtype != np.uint8]
        self.low = min(floats, default=0.0)
        if self.low >= -_SLACK:
            self.low = 0.0


def _read(data: Any, split: Split) -> _Raw | ImageData | ImageSource | SequentialSource:
    if isinstance(data, ImageData):
        images: ImageData = data if data.split == split else replace(data, split=split)
        _check_labels(images)
        return images
    if isinstance(data, (ImageSource, SequentialSource)):
        if data.split != split:
            raise DataError(
                f"a source of the split {data.split!r} was given as {split!r}",
                hint=f"pass data={{{data.split!r}: source}}",
                code="data-source-split",
                split=data.split,
            )
        if isinstance(data, ImageSource):
            _check_labels(data)
        return data
    if isinstance(data, (np.ndarray, Tensor)):
        return _arrays(data, None, split)
    if isinstance(data, tuple) and len(data) == 2 and isinstance(data[0], (np.ndarray, Tensor)):
        return _arrays(*data, split)
    if isinstance(data, (str, bytes, os.PathLike, DataConfig)):
        raise InputError(
            f"data is {type(data).__name__}, which contains no images",
            hint="pass images, or name files by a config: data=FolderConfig(path=...) of "
            "cascadezoo.configs",
            code="input-data-type",
            type=type(data).__name__,
        )
    if not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        raise InputError(
            f"data is {type(data).__name__}, which cannot be read by number",
            hint="pass a map-style dataset, with len(data) and data[i]: of a DataLoader its "
            ".dataset; of a stream a list of its items, or the source huggingface with "
            '"keep": "stream"',
            code="input-data-type",
            type=type(data).__name__,
        )
    if hasattr(data, "features") and hasattr(data, "column_names"):
        return _hugging_face(data, split)
    return _items(data, split, _names_of(data))


def _names_of(data: Any) -> tuple[str, ...] | None:
    """``classes`` of a dataset as in torchvision, also of the dataset in a subset."""
    for _ in range(10):
        names = getattr(data, "classes", None)
        if isinstance(names, (list, tuple)) and names and all(isinstance(n, str) for n in names):
            return tuple(names)
        data = getattr(data, "dataset", None)
    return None


def _items(data: Any, split: Split, names: tuple[str, ...] | None) -> _Raw:
    """The items of a map-style dataset."""
    count = len(data)
    if count == 0:
        raise DataError(f"the {split} data contain no images", code="data-no-images")
    images: list[Pixels] = []
    labels: list[int] = []
    for row in range(count):
        where = f"{split} image {row}"
        try:
            item = data[row]
        except Exception as error:
            raise DataError(
                f"{where} cannot be read: data[{row}] raised {type(error).__name__}: {error}",
                code="data-item-failed",
                row=row,
            ) from error
        image, label = item if isinstance(item, tuple) and len(item) == 2 else (item, None)
        images.append(_pixels(image, where))
        if label is not None:
            labels.append(_label(label, where))
        if row == 0:
            require_data(
                count * images[0].nbytes,
                f"{count:,} {split} images of {'x'.join(map(str, images[0].shape))}",
                hint="pass fewer or smaller images, uint8 instead of floats, or name the files by "
                "a source that can be streamed, such as folder or huggingface",
            )
    if labels and len(labels) < count:
        raise DataError(
            f"{len(labels)} of {count} {split} images have a label",
            hint="give a label for each image, or for none",
            code="data-labels-missing",
        )
    return _Raw(images, labels or None, names if labels else None)


def _hugging_face(data: Any, split: Split) -> _Raw:
    """A mapped dataset of the library ``datasets``, which need not be imported here."""
    features = dict(data.features or {})
    kinds = {name: type(feature).__name__ for name, feature in features.items()}
    images = [name for name, kind in kinds.items() if kind == "Image"]
    classes = [name for name, kind in kinds.items() if kind == "ClassLabel"]
    if not classes:
        classes = [name for name in ("label", "labels") if kinds.get(name) == "Value"]
    for what, found, most in (("images", images, 1), ("labels", classes, 1)):
        if len(found) > most or (what == "images" and not found):
            listed = ", ".join(found or features)
            raise DataError(
                f"the {split} data have {len(found) or 'no'} columns of {what} ({listed})",
                hint="keep one: data.select_columns([...]); cast it to datasets.Image() if it is "
                "not a column of images",
                code="data-columns",
                names=tuple(found or features),
            )
    columns = [*images, *classes]
    rows = data.select_columns(columns).with_format(None)
    names = getattr(features[classes[0]], "names", None) if classes else None

    class _Rows:
        def __len__(self) -> int:
            return len(rows)

        def __getitem__(self, row: int) -> Any:
            item = rows[row]
            return tuple(item[name] for name in columns) if classes else item[columns[0]]

    return _items(_Rows(), split, tuple(names) if names else None)


# --- arrays


def _arrays(images: Any, labels: Any, split: Split) -> _Raw:
    """A whole array or tensor of images, and its labels."""
    first = isinstance(images, Tensor)
    array = _array(images, f"{split} images")
    shape = array.shape
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and 0 not in shape:
        array = array if _channels_first(shape[1:], first=first) else array.transpose(0, 3, 1, 2)
    if array.ndim != 4 or array.shape[1] not in (1, 3) or 0 in shape:
        raise DataError(
            f"the {split} images have the shape {list(shape)}",
            hint="use [N, H, W], [N, H, W, C] or [N, C, H, W] with 1 or 3 channels",
            code="data-images-form",
            dtype=str(array.dtype),
            shape=shape,
        )
    _check_floats(array, f"the {split} images")
    return _Raw(array, None if labels is None else _label_list(labels, len(array), split))


def _label_list(labels: Any, count: int, split: Split) -> list[int]:
    try:
        array = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    except ValueError:  # lists of different lengths
        array = np.asarray(labels, dtype=object)
    if array.dtype.kind not in "iu" or array.shape != (count,):
        raise DataError(
            f"the {split} labels are {array.dtype} {list(array.shape)}, not whole numbers "
            f"[{count}], one for each image",
            hint="pass the number of each image's class, from 0",
            code="data-labels-form",
            dtype=str(array.dtype),
            shape=array.shape,
        )
    return [_label(label, f"{split} image {row}") for row, label in enumerate(array.tolist())]


def _label(label: Any, where: str) -> int:
    try:
        if isinstance(label, (bool, np.bool_)):
            raise TypeError
        number = operator.index(label)
    except TypeError:
        raise DataError(
            f"the label of {where} is {type(label).__name__} {str(label)[:60]!r}, not the number "
            "of a class",
            hint="number the classes from 0",
            code="data-labels-not-whole",
        ) from None
    if not 0 <= number < 2**31:
        raise _out_of_range(number, where)
    return number


def _check_labels(data: ImageData | ImageSource) -> None:
    """Check the labels of images that were read elsewhere."""
    if data.labels is None:
        return
    wrong = np.flatnonzero((data.labels < 0) | (data.labels >= 2**31))
    if len(wrong):
        row = int(wrong[0])
        raise _out_of_range(int(data.labels[row]), f"{data.split} image {row}")


def _out_of_range(label: int, where: str) -> DataError:
    hint = "number the classes from 0"
    if label < 0:
        hint += "; datasets without labels often have -1 there: pass those images without labels"
    return DataError(
        f"the label of {where} is {label}",
        hint=hint,
        code="data-labels-out-of-range",
        low=label,
        high=label,
    )


def _pixels(image: Any, where: str) -> Pixels:
    """One image, [C, H, W]."""
    if isinstance(image, Image.Image):
        return _picture(image, where)
    if not isinstance(image, (np.ndarray, Tensor)):
        raise DataError(
            f"{where} is {type(image).__name__}, not an image",
            hint="items are (image, label) or an image: a PIL image, or an array or tensor of "
            "uint8 or floats",
            code="data-item-type",
            type=type(image).__name__,
        )
    array = _array(image, where)
    shape = array.shape
    if array.ndim == 2:
        array = array[None]
    elif array.ndim == 3 and not _channels_first(shape, first=isinstance(image, Tensor)):
        array = array.transpose(2, 0, 1)
    if array.ndim != 3 or array.shape[0] not in (1, 3) or 0 in shape:
        raise DataError(
            f"{where} has the shape {list(shape)}",
            hint="use [H, W], [C, H, W] or [H, W, C] with 1 or 3 channels",
            code="data-images-form",
            dtype=str(array.dtype),
            shape=shape,
        )
    _check_floats(array, where)
    pixels: Pixels = array
    return pixels


def _channels_first(shape: Sequence[int], *, first: bool) -> bool:
    """Whether the first of three dimensions is that of the channels.

    Args:
        shape: three numbers.
        first: the answer if the shape does not decide: tensors have it first, arrays last.
    """
    one, other = shape[0] in (1, 3), shape[-1] in (1, 3)
    return first if one == other else one


def _array(image: Any, where: str) -> Any:
    array = image.detach().cpu() if isinstance(image, Tensor) else image
    if isinstance(array, Tensor):
        array = (array.float() if array.is_floating_point() else array).numpy()
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind != "f":
        raise DataError(
            f"{where}: the pixels are {array.dtype}, neither uint8 nor floating",
            hint="pass uint8 in [0, 255], or floats in [0, 1] or [-1, 1]",
            code="data-pixel-type",
            dtype=str(array.dtype),
        )
    return array.astype(np.float32, copy=False)


def _check_floats(array: Any, where: str) -> None:
    if array.dtype == np.uint8:
        return
    low, high = float(array.min()), float(array.max())
    if not (-1 - _SLACK <= low <= high <= 1 + _SLACK):
        raise DataError(
            f"{where}: floats are in [{low:g}, {high:g}], neither in [0, 1] nor in [-1, 1]",
            hint="pass uint8 for bytes; normalise by mean 0.5 and deviation 0.5, or not at all",
            code="data-float-range",
            low=low,
            high=high,
        )


def _picture(image: Image.Image, where: str) -> NDArray[np.uint8]:
    if image.mode not in MODES.split():
        raise DataError(
            f"{where} has pixels of type {image.mode}, not 8 bits a channel",
            hint="convert it to 8 bits",
            code="data-pixel-type",
            mode=image.mode,
        )
    try:
        return _decoded(image)
    except DAMAGE as error:  # Pillow decodes an opened file only now
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise DataError(
            f"{where} is not a readable image: {reason}",
            hint="replace or remove it",
            code="data-image-unreadable",
        ) from error


def _decoded(image: Image.Image) -> NDArray[np.uint8]:
    """The pixels of a picture upright on white, [C, H, W]."""
    image = ImageOps.exif_transpose(image)
    if image.mode == "La":  # Pillow converts it to nothing else
        image = image.convert("LA")
    mode = "L" if image.mode in ("1", "L", "La", "LA") else "RGB"
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    return pixels[None] if mode == "L" else pixels.transpose(2, 0, 1)


# --- one array of bytes


def _finished(raw: _Raw, split: Split, size: int | None, *, signed: bool) -> ImageData:
    labels = None if raw.labels is None else np.array(raw.labels, dtype=np.int64)
    if isinstance(raw.images, np.ndarray):
        images = _bytes(raw.images, signed=signed)
        return ImageData(np.require(images, requirements=["C", "W"]), labels, split)
    shapes = [image.shape for image in raw.images]
    channels = max(shape[0] for shape in shapes)
    other = next((row for row, s in enumerate(shapes) if s[1:] != shapes[0][1:]), None)
    if other is not None and size is None:
        raise DataError(
            f"the {split} images have different sizes: image {other} is {_size(shapes[other])}, "
            f"image 0 is {_size(shapes[0])}",
            hint="set data.size in the spec: each image is cropped to its centre square and "
            "resized to it",
            code="data-sizes-differ",
            row=other,
        )
    height, width = shapes[0][1:] if other is None or size is None else (size, size)
    out = np.empty((len(shapes), channels, height, width), dtype=np.uint8)
    for row, image in enumerate(raw.images):
        pixels = _bytes(image, signed=signed)
        out[row] = pixels if other is None else _resized(pixels, height)
    return ImageData(out, labels, split)


def _bytes(image: Any, *, signed: bool) -> NDArray[np.uint8]:
    if image.dtype == np.uint8:
        return image  # type: ignore[no-any-return]
    out = np.empty(image.shape, dtype=np.uint8)
    for part, target in _parts(image, out):
        scaled = (part + np.float32(1)) * np.float32(127.5) if signed else part * np.float32(255)
        target[:] = np.rint(scaled.clip(0, 255))
    return out


def _parts(image: Any, out: Any) -> Iterator[tuple[Any, Any]]:
    """Parts of arrays, which limit the memory of the floats."""
    for start in range(0, len(image), 256):
        yield image[start : start + 256], out[start : start + 256]


def _resized(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The centre square at another size, [C, side, side], as of files; see ``image_decoder``."""
    _, height, width = pixels.shape
    whole = min(height, width)
    top, left = (height - whole) // 2, (width - whole) // 2
    square = pixels[:, top : top + whole, left : left + whole]
    grey = len(square) == 1
    picture = Image.fromarray(
        square[0] if grey else np.ascontiguousarray(square.transpose(1, 2, 0))
    )
    scaled = np.asarray(picture.resize((side, side), Image.Resampling.LANCZOS))
    return scaled[None] if grey else scaled.transpose(2, 0, 1)


def _size(shape: Sequence[int]) -> str:
    return f"{shape[1]}x{shape[2]}"


# --- what is recorded


def _shape(data: ImageData | ImageSource | SequentialSource) -> tuple[int, int, int]:
    if isinstance(data, ImageData):
        _, channels, height, width = data.images.shape
        return channels, height, width
    return data.channels, data.side, data.side


def _reordered(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    return shape[1], shape[2], shape[0]


def _digest(data: ImageData | ImageSource | SequentialSource) -> str:
    if isinstance(data, ImageData):
        return data.digest
    return hashlib.sha256(repr([data.digest(), _shape(data)]).encode()).hexdigest()


def _labels(data: ImageData | ImageSource | SequentialSource) -> NDArray[np.int64] | None:
    return None if isinstance(data, SequentialSource) else data.labels
