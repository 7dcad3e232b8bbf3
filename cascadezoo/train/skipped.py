"""Records the images of a streamed dataset that could not be used."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from cascadezoo.data.streamed import StreamedData
from cascadezoo.train.events import EventLog
from cascadezoo.util.numbers import human_bytes

__all__ = ["SKIPPED", "count_skipped", "describe_stream", "record_skipped", "share_skipped"]

SKIPPED = "images-skipped"
"""The event that lists, as ``images``, the reasons by key."""

_PER_ROW = 500
"""Images of an event; a row has at most 1 MiB."""

_LONGEST = 500


def describe_stream(data: StreamedData) -> str:
    """One line for the display: how many images are streamed, and what is left out."""
    text = (
        f"streaming {len(data):,} images, {human_bytes(data.images.nbytes)} decoded, in blocks of "
        f"{data.settings.buffer:,}"
    )
    if data.skipped or data.skipped_shards:
        text += (
            f"; left out: {len(data.skipped):,} images, and the rest of "
            f"{len(data.skipped_shards):,} shards"
        )
    return text


def record_skipped(events: EventLog, data: StreamedData) -> None:
    """Write the images that are skipped, now and later, as events."""

    def write(images: Mapping[str, str]) -> None:
        rows = iter(images.items())
        while part := dict(itertools.islice(rows, _PER_ROW)):
            events.write(SKIPPED, images={k[:_LONGEST]: v[:_LONGEST] for k, v in part.items()})

    write(data.skipped)
    data.listeners.append(write)


def share_skipped(data: StreamedData, processes: int) -> None:
    """Add the images that other processes skipped; all processes call this together.

    Raises:
        DataError: all processes together skipped more than ``max_bad`` allows.
    """
    if processes == 1:
        return
    from accelerate.utils.operations import gather_object

    data.skip(dict(itertools.chain(*gather_object([list(data.skipped.items())]))))


def count_skipped(events: Iterable[Mapping[str, Any]]) -> int:
    """The number of different images in the events of a training."""
    keys: set[str] = set()
    for row in events:
        if row["event"] == SKIPPED and isinstance(row.get("images"), Mapping):
            keys.update(row["images"])
    return len(keys)
