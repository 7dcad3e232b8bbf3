"""A dataset that stays encoded: its images are decoded when they are read."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from cascadezoo.data.base import ImageData
from cascadezoo.data.block_reader import BlockReader, candidate, samples_in_order
from cascadezoo.data.decoder import Decoded, Decoder, ImageForm
from cascadezoo.data.memory import require_data
from cascadezoo.data.source import ImageSource, Sample, SequentialSource
from cascadezoo.data.stream_order import REAL_ORDER, block_order, real_order, shard_order
from cascadezoo.errors import DataError
from cascadezoo.spec.models import StreamSpec

__all__ = ["LazyImages", "StreamedData", "resident"]

_CHUNK = 1024


class StreamedData(ImageData):
    """Images that are decoded when they are read, in the form of a cascade.

    ``images`` is no array but behaves like one: ``images[rows]`` decodes these images and returns
    an array. The rows of a sequential source are numbered so that the order in which evaluation
    chooses real images is the order of its stream, shuffled by shard and buffer.

    Args:
        source: the encoded images.
        form: the size and channels of the cascade.
        settings: how to stream.

    Raises:
        DataError: more of the source is damaged than ``settings.max_bad``.
    """

    def __init__(
        self,
        source: ImageSource | SequentialSource,
        form: ImageForm,
        settings: StreamSpec | None = None,
    ) -> None:
        settings = settings or StreamSpec()
        own: dict[str, object] = {
            "source": source,
            "form": form,
            "settings": settings,
            "split": source.split,
            "skipped": dict(source.damage.images),
            "listeners": [],
            "_images": LazyImages(self),
        }
        for name, value in own.items():  # the base class is frozen
            object.__setattr__(self, name, value)
        self._check_shards()
        self._check_skipped()

    source: ImageSource | SequentialSource
    form: ImageForm
    settings: StreamSpec
    skipped: dict[str, str]
    """The reason by the key of each image that could not be used so far."""
    listeners: list[Callable[[Mapping[str, str]], None]]
    """Called with the reasons by key when further images are skipped."""
    _images: LazyImages

    @property
    def images(self) -> NDArray[np.uint8]:
        """The images, as :class:`LazyImages`."""
        return cast("NDArray[np.uint8]", self._images)

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """Labels, int64 [N]; reading those of a sequential source takes a pass over it."""
        if isinstance(self.source, SequentialSource):
            return self._sequential_labels if self.source.labelled else None
        return self.source.labels

    @property
    def skipped_shards(self) -> dict[str, str]:
        """The reason by the name of each damaged shard."""
        return self.source.damage.shards

    @cached_property
    def digest(self) -> str:
        """The sha256 of the source's digest and of the form of the images."""
        form = self.form
        parts = [self.source.digest(), form.size, form.channels, form.fit]
        if self.source.sequential:
            parts.append(self.settings.buffer)  # rows are numbered by the shuffled stream
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    @cached_property
    def reading_order(self) -> NDArray[np.int64]:
        """The rows in the order in which they are read once, without going back."""
        return real_order(len(self)) if self.source.sequential else np.arange(len(self))

    def decoder(self, workers: int) -> Decoder:
        """A decoder of these images for a number of threads or processes."""
        tolerant = self.settings.max_bad > 0
        return Decoder(self.source, self.form, workers=workers, tolerant=tolerant)

    def accept(self, decoded: Decoded) -> Decoded:
        """Record the images that a batch replaced, and return the batch.

        Raises:
            CascadezooError: the batch could not be read, or more images were replaced than
                ``max_bad`` allows.
        """
        if decoded.error is not None:
            raise self._with_hint(decoded.error)
        if decoded.skipped:
            self.skip(decoded.skipped)
        return decoded

    def skip(self, images: Mapping[str, str]) -> None:
        """Record images that cannot be used.

        Args:
            images: the reason by key.

        Raises:
            DataError: they are more than ``max_bad`` allows.
        """
        new = {key: why for key, why in images.items() if key not in self.skipped}
        if not new:
            return
        self.skipped.update(new)
        for listener in self.listeners:
            listener(new)
        self._check_skipped()

    @staticmethod
    def _with_hint(error: Exception) -> Exception:
        if isinstance(error, DataError) and error.code.startswith("data-image"):
            hint = f"{error.hint}; or set the share of images to skip: data.stream.max_bad=0.001"
            return DataError(error.what, hint=hint, code=error.code, **error.fields)
        return error

    def _check_skipped(self) -> None:
        total = len(self.source) + len(self.source.damage.images)
        most = self.settings.max_bad * total
        if len(self.skipped) <= most:
            return
        reason = list(self.skipped.values())[-1]
        raise DataError(
            f"{len(self.skipped):,} of {total:,} images cannot be used, more than the share "
            f"{self.settings.max_bad:g}; the last: {reason}",
            hint="correct or remove them, or raise data.stream.max_bad",
            code="data-too-many-bad",
            count=len(self.skipped),
            total=total,
        )

    def _check_shards(self) -> None:
        damaged, total = self.source.damage.shards, self.source.shard_count
        if len(damaged) <= self.settings.max_bad * total:
            return
        shard, reason = next(iter(damaged.items()))
        raise DataError(
            f"{self.source.name}: shard {shard} is damaged: {reason} ({len(damaged)} of {total} "
            f"shards, more than the share {self.settings.max_bad:g})",
            hint="download or write it again, or raise data.stream.max_bad to skip its rest",
            code="data-shard-damaged",
            name=shard,
            count=len(damaged),
            total=total,
        )

    @cached_property
    def _sequential_labels(self) -> NDArray[np.int64]:
        source, buffer = self.source, self.settings.buffer
        assert isinstance(source, SequentialSource)  # noqa: S101 - for mypy
        shards = shard_order(source.shard_count, REAL_ORDER)
        read = np.array([_label(sample) for sample in samples_in_order(source, shards)])
        places = np.concatenate(
            [
                first + np.array(block_order(min(buffer, len(read) - first), block, REAL_ORDER))
                for block, first in enumerate(range(0, len(read), buffer))
            ]
        )
        labels = np.empty(len(read), dtype=np.int64)
        labels[real_order(len(read))] = read[places]
        return labels


class LazyImages:
    """Decodes images when they are indexed: by number, slice or array of numbers.

    Args:
        data: the dataset.
    """

    ndim = 4
    dtype = np.dtype(np.uint8)

    def __init__(self, data: StreamedData) -> None:
        self._data = data
        self._threads = min(32, os.cpu_count() or 1)
        self._reader: BlockReader | None = None

    def __len__(self) -> int:
        return len(self._data.source)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """N, C, H, W."""
        form = self._data.form
        return len(self), form.channels, form.size, form.size

    @property
    def nbytes(self) -> int:
        """The size of all decoded images."""
        form = self._data.form
        return len(self) * form.channels * form.size**2

    def __getitem__(self, rows: Any) -> NDArray[np.uint8]:
        """Decode images.

        Raises:
            DataError: an image is bad, or more than ``max_bad`` are.
            IndexError: there is no such image.
        """
        numbers = self._numbers(rows)
        size = max(1, numbers.size) * self.nbytes // max(1, len(self))
        require_data(size, f"{numbers.size:,} decoded images", hint="read fewer at once")
        images = self._read(np.atleast_1d(numbers))
        return images if numbers.ndim else images[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Decode all images.

        Raises:
            ResourceError: they are larger than the limit or the machine's memory.
        """
        images = self[:]
        return images if dtype is None else images.astype(dtype)

    def _numbers(self, rows: Any) -> NDArray[np.int64]:
        if isinstance(rows, slice):
            return np.arange(*rows.indices(len(self)))
        numbers = np.asarray(rows)
        if numbers.dtype == np.bool_:
            return np.flatnonzero(numbers)
        if numbers.size and not -len(self) <= numbers.min() <= numbers.max() < len(self):
            raise IndexError(f"a row is not one of {len(self)} images")
        return numbers.astype(np.int64) % max(1, len(self))

    def _read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        out = np.empty((len(rows), *self.shape[1:]), dtype=np.uint8)
        with ThreadPoolExecutor(self._threads) as pool:
            if self._data.source.sequential:
                places = self._places[rows]
                order = np.argsort(places, kind="stable")
                reader = self._block_reader()
                for first in range(0, len(rows), _CHUNK):
                    some = order[first : first + _CHUNK]
                    decoded = reader.read(places[some].tolist(), pool)
                    out[some] = self._data.accept(decoded).images.numpy()
            else:
                for first in range(0, len(rows), _CHUNK):
                    part = slice(first, first + _CHUNK)
                    decoded = self._decoder.rows(rows[part].tolist(), pool)
                    out[part] = self._data.accept(decoded).images.numpy()
        return out

    @cached_property
    def _decoder(self) -> Decoder:
        return self._data.decoder(self._threads)

    @cached_property
    def _places(self) -> NDArray[np.int64]:
        """The place of each row in the stream."""
        return np.argsort(real_order(len(self)))

    def _block_reader(self) -> BlockReader:
        if self._reader is None:
            self._reader = BlockReader(self._decoder, self._data.settings.buffer, REAL_ORDER)
        return self._reader


def resident(source: ImageSource | SequentialSource) -> ImageData:
    """Decode a whole source into memory, in its own size and channels.

    Raises:
        DataError: a shard or an image is bad.
        ResourceError: the images are larger than the limit or the machine's memory.
    """
    require_data(
        source.nbytes,
        f"{source.name}: {len(source):,} images of {source.side}x{source.side}",
        hint="set data.streaming to auto, or use fewer or smaller images",
    )
    data = StreamedData(source, ImageForm(source.side, source.channels))
    if not isinstance(source, SequentialSource):
        return ImageData(np.asarray(data.images), source.labels, source.split)
    images = np.empty(data.images.shape, dtype=np.uint8)
    labels = np.empty(len(source), dtype=np.int64)
    samples = samples_in_order(source, range(source.shard_count))
    first, threads = 0, min(32, os.cpu_count() or 1)
    decoder = data.decoder(threads)
    with ThreadPoolExecutor(threads) as pool:
        while chunk := list(itertools.islice(samples, _CHUNK)):
            places = [[candidate(source, sample)] for sample in chunk]
            decoded = data.accept(decoder.decode(places, pool))
            images[first : first + len(chunk)] = decoded.images.numpy()
            labels[first : first + len(chunk)] = [_label(sample) for sample in chunk]
            first += len(chunk)
    return ImageData(images, labels if source.labelled else None, source.split)


def _label(sample: Sample) -> int:
    return -1 if sample.label is None else sample.label
