"""Finds the samples in the shards of a WebDataset, and reads their images."""

from __future__ import annotations

import functools
import glob
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cascadezoo.data.base import Split
from cascadezoo.data.files import data_path
from cascadezoo.data.image_decoder import square_size
from cascadezoo.data.memory import largest_data
from cascadezoo.data.names import Names
from cascadezoo.data.source import Damage, ImageSource
from cascadezoo.data.tar_index import Member, TarDamageError, read_index, read_member
from cascadezoo.errors import DataError
from cascadezoo.util.limits import LARGEST_PICTURE_FILE
from cascadezoo.util.text import clean_remote

__all__ = ["ShardIndex", "WebDatasetSource", "find_shards", "first_side", "index_shards"]

_MOST_SHARDS = 100_000
_MOST_SAMPLES = 50_000_000
"""Their index takes about 5 GB."""

_LARGEST_LABEL = 20
_RANGE = re.compile(r"\{(\d{1,12})\.\.(\d{1,12})\}")
_SHOWN = 200


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """The usable samples of some shards.

    Args:
        shards: the archives.
        per_shard: number of samples of each, int64.
        keys: the name of each sample's image file.
        offsets: where its image begins in its shard, int64.
        sizes: the bytes of its image, int64.
        labels: its class, int64; None without labels.
        damage: what is not usable.
    """

    shards: tuple[Path, ...]
    per_shard: NDArray[np.int64]
    keys: Names
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    labels: NDArray[np.int64] | None
    damage: Damage

    @property
    def count(self) -> int:
        """Number of samples."""
        return len(self.keys)


def find_shards(text: str) -> tuple[Path, ...]:
    """The archives that a path or pattern names, sorted.

    Raises:
        DataError: it names none, an address, or too many.
    """
    shown = clean_remote(text, _SHOWN)
    if re.match(r"[a-z][a-z0-9+]*:", text):
        raise DataError(
            f"{shown!r} is an address, but shards are read from this machine",
            hint="download the shards, or use the dataset huggingface",
            code="data-shards-remote",
            path=shown,
        )
    path = data_path(text)
    if path.is_dir():
        found = sorted(path.glob("*.tar"))
    elif path.is_file():
        found = [path]
    else:
        # A missing shard of a range is an error, a pattern names those that exist.
        names = _expanded(str(path)) or glob.glob(str(path))  # noqa: PTH207 - may be absolute
        found = sorted({Path(name) for name in names})
    if not found:
        raise DataError(
            f"no shards found: {shown}",
            hint="give a tar file, a folder of *.tar, or a pattern such as train-*.tar; a relative "
            "path starts from the current directory",
            code="data-no-shards",
            path=shown,
        )
    if len(found) > _MOST_SHARDS:
        raise DataError(
            f"{shown} names {len(found):,} shards, more than {_MOST_SHARDS:,}",
            hint="write fewer and larger shards",
            code="data-too-many-shards",
            count=len(found),
            limit=_MOST_SHARDS,
        )
    return tuple(found)


def _expanded(text: str) -> list[str]:
    """The paths that a range ``{000..099}`` stands for; none without a range."""
    match = _RANGE.search(text)
    if match is None:
        return []
    first, last = int(match[1]), int(match[2])
    numbers = range(first, min(last, first + _MOST_SHARDS) + 1)
    start, end = text[: match.start()], text[match.end() :]
    return [start + str(number).zfill(len(match[1])) + end for number in numbers]


def index_shards(
    shards: tuple[Path, ...], images: tuple[str, ...], label: str | None
) -> ShardIndex:
    """Read the headers of shards, and the labels of their samples.

    The result is kept while the files do not change, because validation and training need it.

    Args:
        shards: the archives.
        images: the extensions of images.
        label: the extension of labels; None reads none.

    Raises:
        DataError: a shard is missing or not a regular file, or no sample is usable.
    """
    states = []
    for shard in shards:
        try:
            state = shard.stat()
        except OSError as error:
            raise DataError(
                f"cannot read {shard}: {error.strerror or error}",
                code="data-shard-unreadable",
                path=shard,
            ) from error
        states.append((state.st_size, state.st_mtime_ns))
    return _index(shards, images, label, tuple(states))


@functools.lru_cache(maxsize=4)
def _index(
    shards: tuple[Path, ...],
    images: tuple[str, ...],
    label: str | None,
    states: tuple[tuple[int, int], ...],
) -> ShardIndex:
    rows = _Rows(tuple(text.lower() for text in images), label)
    counts = []
    for shard in shards:
        before = len(rows.keys)
        try:
            for sample in _samples(read_index(shard)):
                rows.add(shard, sample)
                if len(rows.keys) + len(rows.damage.images) > _MOST_SAMPLES:
                    raise DataError(
                        f"{shard.parent} has more than {_MOST_SAMPLES:,} samples",
                        hint="use fewer shards",
                        code="data-too-many-samples",
                        limit=_MOST_SAMPLES,
                    )
        except TarDamageError as error:
            rows.damage.shards[shard.name] = str(error)
        except OSError as error:
            rows.damage.shards[shard.name] = error.strerror or str(error)
        counts.append(len(rows.keys) - before)
    if not rows.keys:
        reasons = [*rows.damage.shards.items(), *rows.damage.images.items()]
        detail = f": {reasons[0][0]}: {reasons[0][1]}" if reasons else ""
        raise DataError(
            f"{shards[0].parent} has no usable samples in {len(shards)} shards{detail}",
            hint=f"a sample is an image ({', '.join(images[:4])}, ...) and its label"
            + (f" ({label}); set data.config.label to null without labels" if label else ""),
            code="data-no-samples",
            path=shards[0],
        )
    labels = np.array(rows.labels, dtype=np.int64)
    return ShardIndex(
        shards,
        np.array(counts, dtype=np.int64),
        Names(rows.keys),
        np.array(rows.offsets, dtype=np.int64),
        np.array(rows.sizes, dtype=np.int64),
        None if label is None else labels,
        rows.damage,
    )


@dataclass(slots=True)
class _Rows:
    """The samples found so far."""

    images: tuple[str, ...]
    label: str | None
    keys: list[str] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    damage: Damage = field(default_factory=Damage)

    def add(self, shard: Path, sample: dict[str, Member]) -> None:
        key = f"{shard.name}: {clean_remote(next(iter(sample.values())).name, _SHOWN)}"
        image = next((sample[ext] for ext in sample if ext in self.images), None)
        if image is None:
            return self._bad(key, "has no image")
        key = f"{shard.name}: {clean_remote(image.name, _SHOWN)}"
        most = largest_data(LARGEST_PICTURE_FILE)
        if image.size > most:
            return self._bad(key, f"has {image.size:,} bytes, more than the limit of {most:,}")
        number = 0
        if self.label is not None:
            found = sample.get(self.label.lower())
            if found is None:
                return self._bad(key, f"has no label ({self.label})")
            if found.size > _LARGEST_LABEL:
                return self._bad(key, f"has a label of {found.size:,} bytes")
            text = read_member(shard, found.offset, found.size).strip()
            if not text.isdigit() or int(text) >= 2**31:
                shown = clean_remote(text.decode("utf-8", "replace"), _SHOWN)
                return self._bad(key, f"has the label {shown!r}, which is no class number")
            number = int(text)
        self.keys.append(key)
        self.offsets.append(image.offset)
        self.sizes.append(image.size)
        self.labels.append(number)
        return None

    def _bad(self, key: str, reason: str) -> None:
        self.damage.images[key] = f"{key} {reason}"


def _samples(members: Iterable[Member]) -> Iterator[dict[str, Member]]:
    """Consecutive files with the same key, by their extensions."""
    now: str | None = None
    sample: dict[str, Member] = {}
    for member in members:
        folder, _, name = member.name.rpartition("/")
        stem, _, extension = name.partition(".")
        if not stem or not extension:
            continue  # a hidden file, or one without an extension
        key = f"{folder}/{stem}"
        if key != now and sample:
            yield sample
            sample = {}
        now = key
        sample.setdefault(extension.lower(), member)
    if sample:
        yield sample


def first_side(index: ShardIndex) -> int:
    """The side of the first image's centre square in pixels.

    Raises:
        DataError: it is not a readable image.
    """
    shard = index.shards[int(np.flatnonzero(index.per_shard)[0])]
    name = f"{shard.parent}: {index.keys[0]}"
    return square_size(_read(shard, index, 0, name), name)


def _read(shard: Path, index: ShardIndex, row: int, name: str) -> bytes:
    try:
        return read_member(shard, int(index.offsets[row]), int(index.sizes[row]))
    except OSError as error:
        raise DataError(
            f"{name} cannot be read: {error}", code="data-image-unreadable", path=name
        ) from error


class WebDatasetSource(ImageSource):
    """The images of shards.

    Args:
        index: their samples.
        name: the path or pattern, for messages.
        channels: 1 for grey, 3 for RGB.
        resize: the side of the images; None uses that of the first.
        split: the part of the dataset.

    Raises:
        DataError: the first image is not readable.
    """

    def __init__(
        self, index: ShardIndex, name: str, *, channels: int, resize: int | None, split: Split
    ) -> None:
        side = resize or first_side(index)
        super().__init__(
            clean_remote(name, _SHOWN),
            split,
            channels=channels,
            side=side,
            resize=resize is not None,
        )
        self.labels = index.labels
        self.shards = index.per_shard
        self.damage = index.damage
        self._index = index
        self._ends = np.cumsum(index.per_shard)

    def __len__(self) -> int:
        return self._index.count

    def key(self, row: int) -> str:
        """The shard and the name of the image in it."""
        return self._index.keys[row]

    def encoded(self, row: int) -> bytes:
        """The bytes of an image file."""
        shard = self._index.shards[int(np.searchsorted(self._ends, row, side="right"))]
        return _read(shard, self._index, row, self.title(row))

    def sizes(self) -> NDArray[np.int64]:
        """The bytes of each image file."""
        return self._index.sizes
