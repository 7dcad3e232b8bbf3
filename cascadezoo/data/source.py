"""Sources of encoded images that are decoded one by one: the input of the streaming path."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cascadezoo.data.base import Split
from cascadezoo.data.files import open_data
from cascadezoo.data.holdout import holdout_indices
from cascadezoo.errors import DataError

__all__ = ["Damage", "ImageSource", "Sample", "SequentialSource", "split_source"]

_PROBES = 64
"""Number of images whose first bytes the digest of a source includes."""

_PROBE_BYTES = 1 << 20


@dataclass(slots=True)
class Damage:
    """What cannot be used of a source, found when its index was read.

    Args:
        shards: the reason by shard; its images after the damage are left out.
        images: the reason by the key of an image that is left out.
    """

    shards: dict[str, str] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sample:
    """One encoded image of a sequential source."""

    key: str
    encoded: bytes
    label: int | None
    fault: DataError | None = None
    """Why the image is missing."""


class _Source(ABC):
    """What the two kinds of sources share.

    Args:
        name: the source in messages.
        split: the part of the dataset.
        channels: 1 reads grey images, 3 RGB.
        side: the height and width of a decoded image in pixels.
        resize: resize images to ``side``; False requires that they have this size.
    """

    sequential: ClassVar[bool]

    def __init__(self, name: str, split: Split, *, channels: int, side: int, resize: bool) -> None:
        self.name = name
        self.split: Split = split
        self.channels = channels
        self.side = side
        self.resize = resize
        self.damage = Damage()

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @property
    @abstractmethod
    def shard_count(self) -> int:
        """Number of shards, including damaged ones; 0 without shards."""

    @property
    def nbytes(self) -> int:
        """The size of all decoded images."""
        return len(self) * self.channels * self.side**2

    @abstractmethod
    def digest(self) -> str:
        """A sha256 that identifies the images; it may leave out their pixels."""


class ImageSource(_Source):
    """Encoded images of a dataset that may be larger than the memory, readable in any order.

    Worker processes read them, so an instance must be picklable.

    Args:
        name: the source in messages.
        split: the part of the dataset.
        channels: 1 reads grey images, 3 RGB.
        side: the height and width of a decoded image in pixels.
        resize: resize images to ``side``; False requires that they have this size.

    Attributes:
        labels: int64 [N]; None without labels.
        shards: number of images of each shard, in their order; None if any order is as fast.
        damage: what was left out when the source was opened.
    """

    sequential = False

    labels: NDArray[np.int64] | None = None
    shards: NDArray[np.int64] | None = None

    @abstractmethod
    def key(self, row: int) -> str:
        """The name of an image within the source, with its shard."""

    def title(self, row: int) -> str:
        """The name of an image in messages."""
        return f"{self.name}: {self.key(row)}"

    @abstractmethod
    def encoded(self, row: int) -> bytes | Path:
        """An image file, or its bytes.

        Raises:
            DataError: it cannot be read.
        """

    @abstractmethod
    def sizes(self) -> NDArray[np.int64]:
        """The bytes of each encoded image."""

    @property
    def shard_count(self) -> int:
        """Number of shards, including damaged ones; 0 without shards."""
        return 0 if self.shards is None else len(self.shards)

    def digest(self) -> str:
        """The sha256 of all keys, sizes and labels, and of the first MiB of 64 images.

        These images are evenly spaced. All keys and sizes identify images that were added, removed
        or encoded again, without reading each of them.
        """
        digest = hashlib.sha256(repr((len(self), self.channels, self.side)).encode())
        for row in range(len(self)):
            digest.update(self.key(row).encode(errors="surrogateescape") + b"\0")
        digest.update(np.ascontiguousarray(self.sizes()).tobytes())
        if self.labels is not None:
            digest.update(np.ascontiguousarray(self.labels).tobytes())
        for row in np.unique(np.linspace(0, len(self) - 1, _PROBES).astype(np.int64)):
            digest.update(self._start(int(row)))
        return digest.hexdigest()

    def _start(self, row: int) -> bytes:
        """The first bytes of an image; empty if it is unreadable, which decoding reports."""
        try:
            encoded = self.encoded(row)
            if isinstance(encoded, bytes):
                return encoded[:_PROBE_BYTES]
            with open_data(encoded) as file:
                return file.read(_PROBE_BYTES)
        except (OSError, DataError):
            return b""


class SequentialSource(_Source):
    """Images that can only be read from the start of a shard, for example over a network."""

    sequential = True

    labelled: bool = False
    """Whether samples have labels."""

    @abstractmethod
    def samples(self, shard: int) -> Iterator[Sample]:
        """The images of a shard in their order.

        Raises:
            DataError: the shard cannot be read.
        """


class _Part(ImageSource):
    """Some images of another source."""

    def __init__(self, whole: ImageSource, rows: NDArray[np.int64], split: Split) -> None:
        super().__init__(
            whole.name, split, channels=whole.channels, side=whole.side, resize=whole.resize
        )
        self._whole = whole
        self._rows = rows
        self.damage = whole.damage
        self.labels = None if whole.labels is None else whole.labels[rows]
        if whole.shards is not None:
            owner = np.repeat(np.arange(len(whole.shards)), whole.shards)[rows]
            self.shards = np.bincount(owner, minlength=len(whole.shards)).astype(np.int64)

    def __len__(self) -> int:
        return len(self._rows)

    def key(self, row: int) -> str:
        return self._whole.key(int(self._rows[row]))

    def title(self, row: int) -> str:
        return self._whole.title(int(self._rows[row]))

    def encoded(self, row: int) -> bytes | Path:
        return self._whole.encoded(int(self._rows[row]))

    def sizes(self) -> NDArray[np.int64]:
        return self._whole.sizes()[self._rows]


def split_source(source: ImageSource, fraction: float, split: Split) -> ImageSource:
    """The part of a source that belongs to a split; see :func:`holdout_indices`.

    Raises:
        DataError: there is no test split, or the training split would be empty.
    """
    rows = holdout_indices(len(source), fraction, split, source=source.name)
    return source if len(rows) == len(source) else _Part(source, rows, split)
