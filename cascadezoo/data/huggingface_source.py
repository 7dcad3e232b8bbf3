"""Reads the images of a dataset of the library ``datasets``, without decoding by that library."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cascadezoo.data.base import Split
from cascadezoo.data.huggingface_info import local_folder
from cascadezoo.data.image_decoder import square_size
from cascadezoo.data.memory import largest_data
from cascadezoo.data.source import ImageSource, Sample, SequentialSource, split_source
from cascadezoo.errors import DataError
from cascadezoo.util.limits import LARGEST_PICTURE_FILE
from cascadezoo.util.text import clean_remote

if TYPE_CHECKING:
    from cascadezoo.data.huggingface import HuggingFaceConfig

__all__ = ["MappedSource", "StreamSource", "open_split"]

_CHUNK = 1000
"""Rows of a mapped dataset that count as a shard: they are close together in its file."""

_SHOWN = 200


def open_split(config: HuggingFaceConfig, split: Split) -> ImageSource | SequentialSource:
    """Load a split of a dataset.

    Raises:
        DataError: ``datasets`` is not installed, the dataset cannot be loaded, or has no such
            split or column, or its first image is not readable.
    """
    stored = config.test if split == "test" and config.test is not None else config.train
    if split == "test" and config.test is None and config.keep == "stream":
        raise DataError(
            f"{config.path} has no test split",
            hint="set data.config.test to the name of the split",
            code="data-no-test-split",
            name=config.path,
        )
    dataset, count = _load(config, stored)
    dataset = _checked(config, dataset)
    if config.keep == "stream":
        return StreamSource(config, dataset, stored, split, count)
    if stored == config.train and config.count is not None and config.count < len(dataset):
        dataset = dataset.select(range(config.count))
    source = MappedSource(config, dataset, stored, split)
    if config.test is not None:
        return source
    return split_source(source, config.holdout, split)


def _load(config: HuggingFaceConfig, stored: str) -> tuple[Any, int | None]:
    """The dataset of a split, mapped or as a stream, and its number of images if it is stated."""
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"the dataset huggingface needs the library datasets, which is not installed ({error})",
            hint="install it: pip install 'cascadezoo[datasets]'",
            code="data-datasets-missing",
        ) from error
    folder = local_folder(config)
    stream, memory = config.keep == "stream", config.keep == "memory"
    quiet = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        if folder is not None and (
            (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()
        ):
            saved = datasets.load_from_disk(str(folder), keep_in_memory=memory)
            if isinstance(saved, datasets.DatasetDict):
                saved = saved[stored]
            if stream:
                return saved.to_iterable_dataset(num_shards=_shards(saved)), len(saved)
            return saved, len(saved)
        loaded = datasets.load_dataset(
            str(folder or config.path),
            config.name,
            split=stored,
            revision=None if folder else config.revision,
            streaming=stream,
            keep_in_memory=None if stream else memory,
        )
        stated = (loaded.info.splits or {}).get(stored)
        return loaded, getattr(stated, "num_examples", None) or None
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise DataError(
            f"cannot load the split {stored!r} of {clean_remote(config.path, _SHOWN)}: "
            f"{clean_remote(reason, 400)}",
            hint="check data.config.path, name, revision and the names of the splits",
            code="data-datasets-failed",
            path=clean_remote(config.path, _SHOWN),
            name=stored,
        ) from error
    finally:
        if quiet:
            datasets.enable_progress_bars()


def _shards(saved: Any) -> int:
    return max(1, min(len(saved), len(saved) // _CHUNK))


def _checked(config: HuggingFaceConfig, dataset: Any) -> Any:
    """The dataset with only the columns that are used, and without decoding."""
    import datasets

    features = dataset.features
    if features is None:
        dataset = dataset._resolve_features()
        features = dataset.features or {}
    listed = ", ".join(clean_remote(str(name), 60) for name in list(features)[:20])
    for name in (config.image, config.label):
        if name is not None and name not in features:
            raise DataError(
                f"{config.path} has no column {name!r}; it has {listed}",
                hint="set data.config.image and data.config.label to names of columns",
                code="data-no-column",
                name=name,
            )
    if not isinstance(features[config.image], datasets.Image):
        raise DataError(
            f"{config.path}: the column {config.image!r} is {type(features[config.image]).__name__}"
            ", not images",
            hint="cast it to datasets.Image() and save the dataset again",
            code="data-column-not-images",
            name=config.image,
        )
    used = [name for name in (config.image, config.label) if name is not None]
    dataset = dataset.select_columns(used)
    return dataset.cast_column(config.image, datasets.Image(decode=False))


def _bytes(row: Mapping[str, Any], column: str, name: str) -> bytes:
    """The encoded image of a row. A path in it is not opened: it may name any file or address."""
    value = row.get(column)
    content = value.get("bytes") if isinstance(value, Mapping) else None
    if not isinstance(content, bytes):
        raise DataError(
            f"{name} is not stored in the dataset",
            hint="store the images in it (embed_external_files), or use the dataset folder",
            code="data-image-not-stored",
            path=name,
        )
    most = largest_data(LARGEST_PICTURE_FILE)
    if len(content) > most:
        raise DataError(
            f"{name} is too large: it has {len(content):,} bytes, more than the limit of {most:,}",
            hint="remove it",
            code="data-image-too-large",
            path=name,
        )
    return content


class MappedSource(ImageSource):
    """The images of a dataset in memory or mapped into memory.

    Args:
        config: the config.
        dataset: the ``datasets.Dataset``, without decoding.
        stored: the name of its split.
        split: the part of the dataset for the cascade.

    Raises:
        DataError: it is empty, a label is no integer, or the first image is not readable.
    """

    def __init__(self, config: HuggingFaceConfig, dataset: Any, stored: str, split: Split) -> None:
        self._dataset = dataset
        self._column = config.image
        self._stored = stored
        if not len(dataset):
            raise DataError(
                f"{config.path}: the split {stored!r} contains no images", code="data-no-images"
            )
        name = clean_remote(config.path, _SHOWN)
        first = _bytes(dataset[0], config.image, f"{name}: {stored}[0]")
        super().__init__(
            name,
            split,
            channels=config.channels,
            side=config.resize or square_size(first, f"{name}: {stored}[0]"),
            resize=config.resize is not None,
        )
        count = len(dataset)
        self.shards = np.full(-(-count // _CHUNK), _CHUNK, dtype=np.int64)
        self.shards[-1] = count - _CHUNK * (len(self.shards) - 1)
        self.labels = None
        if config.label is not None:
            self.labels = _labels(dataset, config.label, name)

    def __len__(self) -> int:
        return len(self._dataset)

    @property
    def shard_count(self) -> int:
        """0: parts of one file are no shards that can be damaged alone."""
        return 0

    def key(self, row: int) -> str:
        """The split and the number of the row."""
        return f"{self._stored}[{row}]"

    def encoded(self, row: int) -> bytes:
        """The bytes of an image file."""
        return _bytes(self._dataset[row], self._column, self.title(row))

    def sizes(self) -> NDArray[np.int64]:
        """The bytes of each image; -1 if it is not stored. Reads only the offsets."""
        import pyarrow.compute as pc

        column = self._dataset.data.column(self._column)
        sizes = [
            np.asarray(pc.fill_null(pc.binary_length(pc.struct_field(chunk, "bytes")), -1))
            for chunk in column.chunks
        ]
        return np.concatenate(sizes).astype(np.int64)


def _labels(dataset: Any, column: str, name: str) -> NDArray[np.int64]:
    values = dataset.data.column(column)
    if values.null_count == 0 and str(values.type).startswith(("int", "uint")):
        parts = [np.asarray(chunk).astype(np.int64) for chunk in values.chunks]
        return np.concatenate(parts)
    raise DataError(
        f"{name}: the column {column!r} has no integer for some image",
        hint="save the class of each image as an integer or a ClassLabel",
        code="data-labels-not-whole",
        name=column,
    )


class StreamSource(SequentialSource):
    """The images of a dataset that is read from the start, for example from the Hub.

    Args:
        config: the config.
        dataset: the ``datasets.IterableDataset``, without decoding.
        stored: the name of its split.
        split: the part of the dataset for the cascade.
        count: its number of images; None if it is not stated.

    Raises:
        DataError: the number of images is unknown, or the first image is not readable.
    """

    def __init__(
        self,
        config: HuggingFaceConfig,
        dataset: Any,
        stored: str,
        split: Split,
        count: int | None,
    ) -> None:
        self._dataset = dataset
        self._config = config
        self._stored = stored
        name = clean_remote(config.path, _SHOWN)
        self._count = self._stated(name, split, count)
        self.labelled = config.label is not None
        self._title = name
        first = next((s for s in self.samples(0) if s.fault is None), None)
        if first is None:
            raise DataError(
                f"{config.path}: the split {stored!r} contains no images", code="data-no-images"
            )
        super().__init__(
            name,
            split,
            channels=config.channels,
            side=config.resize or square_size(first.encoded, f"{name}: {first.key}"),
            resize=config.resize is not None,
        )

    def _stated(self, name: str, split: Split, stated: int | None) -> int:
        limit = self._config.count if split == "train" else None
        if stated is None and limit is None:
            raise DataError(
                f"{name}: the number of images of the split {self._stored!r} is unknown",
                hint="set data.config.count, or data.config.keep to mapped",
                code="data-count-unknown",
                name=self._stored,
            )
        return min(stated or limit or 0, limit or stated or 0)

    def __len__(self) -> int:
        return self._count

    @property
    def shard_count(self) -> int:
        """Number of files of the dataset."""
        return int(self._dataset.num_shards)

    def samples(self, shard: int) -> Iterator[Sample]:
        """The images of a file in their order."""
        config = self._config
        rows = iter(self._dataset.shard(num_shards=self.shard_count, index=shard))
        for number in range(self._count):
            key = f"{self._stored}, shard {shard}, image {number}"
            try:
                row = next(rows, None)
            except Exception as error:
                reason = (str(error).splitlines() or [""])[0] or type(error).__name__
                raise DataError(
                    f"{self._title}: {key} cannot be read: {clean_remote(reason, 400)}",
                    hint="run the same command again if the connection failed",
                    code="data-shard-unreadable",
                    name=self._stored,
                ) from error
            if row is None:
                return
            label = None if config.label is None else row.get(config.label)
            if isinstance(label, bool) or not isinstance(label, int):
                label = None
            try:
                encoded = _bytes(row, config.image, f"{self._title}: {key}")
            except DataError as error:
                yield Sample(key, b"", label, error)
                continue
            yield Sample(key, encoded, label)

    def digest(self) -> str:
        """The sha256 of the address, revision, number of images, and the first 64 images."""
        config = self._config
        revision = getattr(self._dataset.info, "version", None)
        parts = [config.path, config.name, config.revision, self._stored, len(self), str(revision)]
        digest = hashlib.sha256(repr(parts).encode())
        for _, sample in zip(range(64), self.samples(0), strict=False):
            digest.update(sample.encoded + str(sample.label).encode())
        return digest.hexdigest()
