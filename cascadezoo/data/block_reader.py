"""Reads a source that can only be read from the start, shuffled by shard and buffer."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor

from cascadezoo.data.decoder import Candidate, Decoded, Decoder
from cascadezoo.data.memory import largest_data
from cascadezoo.data.source import Sample, SequentialSource
from cascadezoo.data.stream_order import block_order, shard_order
from cascadezoo.errors import DataError, ResourceError

__all__ = ["BlockReader", "candidate", "samples_in_order"]


def candidate(source: SequentialSource, sample: Sample) -> Candidate:
    """An image in the form that :class:`Decoder` takes."""

    def read() -> bytes:
        if sample.fault is not None:
            raise sample.fault
        return sample.encoded

    return sample.key, f"{source.name}: {sample.key}", read, sample.label


def samples_in_order(source: SequentialSource, shards: Iterable[int]) -> Iterator[Sample]:
    """All images of a source.

    Args:
        source: the source.
        shards: the order of its shards.

    Raises:
        DataError: the source has fewer images than it states.
    """
    read = 0
    for shard in shards:
        for sample in source.samples(shard):
            if read == len(source):
                return
            read += 1
            yield sample
    if read < len(source):
        raise DataError(
            f"{source.name} has {read:,} images, but {len(source):,} are stated",
            hint=f"set data.config.count to {read}",
            code="data-stream-short",
            count=read,
            needed=len(source),
        )


class BlockReader:
    """Decodes the images at given places of a shuffled stream.

    The stream is cut into blocks of ``buffer`` encoded images, and each block is shuffled. While
    one block is in use, a thread reads the next. A place before the current block costs reading
    from the start; a place after it costs reading up to it, without decoding.

    Args:
        decoder: decodes the images of a :class:`SequentialSource`.
        buffer: number of images of a block.
        key: what the order depends on.
    """

    def __init__(self, decoder: Decoder, buffer: int, *key: str | int) -> None:
        source = decoder.source
        assert isinstance(source, SequentialSource)  # noqa: S101 - for mypy
        self._decoder = decoder
        self._source = source
        self._buffer = buffer
        self._key = key
        self._blocks: Iterator[tuple[int, list[Sample]]] = iter(())
        self._number = -1
        self._block: list[Sample] = []
        self._order: list[int] = []

    def read(self, places: Sequence[int], pool: Executor | None = None) -> Decoded:
        """Decode the images at places of the stream.

        Args:
            places: numbers below the number of images. Ascending numbers are read fastest.
            pool: threads that decode; None uses only this one.

        Raises:
            DataError: the source cannot be read, or has fewer images than it states.
            ResourceError: the encoded images of a block are larger than the limit.
        """
        return self._decoder.decode([self._candidates(place) for place in places], pool)

    def close(self) -> None:
        """Stop reading ahead."""
        closing = getattr(self._blocks, "close", None)
        if closing is not None:
            closing()

    def _candidates(self, place: int) -> Iterator[Candidate]:
        number, inside = divmod(place, self._buffer)
        self._seek(number)
        block, start = self._block, self._order[inside]
        return self._from(block, start)

    def _from(self, block: list[Sample], start: int) -> Iterator[Candidate]:
        for offset in range(len(block)):
            yield candidate(self._source, block[(start + offset) % len(block)])

    def _seek(self, number: int) -> None:
        if number < self._number or self._number < 0:
            self.close()
            self._blocks = self._read_blocks(number)
            self._number = -1
        while self._number < number:
            self._number, self._block = next(self._blocks)
            self._order = block_order(len(self._block), self._number, *self._key)

    def _read_blocks(self, first: int) -> Iterator[tuple[int, list[Sample]]]:
        shards = shard_order(self._source.shard_count, *self._key)
        samples = samples_in_order(self._source, shards)
        skipped = first * self._buffer
        next(itertools.islice(samples, skipped, skipped), None)
        with ThreadPoolExecutor(1) as reader:
            ahead = reader.submit(self._collect, samples)
            for number in itertools.count(first):
                block = ahead.result()
                if not block:
                    return
                ahead = reader.submit(self._collect, samples)
                yield number, block

    def _collect(self, samples: Iterator[Sample]) -> list[Sample]:
        block: list[Sample] = []
        size, most = 0, largest_data() // 2  # the next block is read at the same time
        for sample in itertools.islice(samples, self._buffer):
            size += len(sample.encoded)
            if size > most:
                raise ResourceError(
                    f"{self._source.name}: a buffer of {self._buffer:,} images takes more than "
                    f"{most:,} bytes",
                    hint=f"lower data.stream.buffer, e.g. to {max(1, len(block) // 2)}",
                    code="resources-stream-buffer",
                    limit=most,
                )
            block.append(sample)
        return block
