"""Finds the files in a tar archive by its headers. Extracts nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cascadezoo.data.files import open_data
from cascadezoo.util.text import clean_remote

__all__ = ["Member", "TarDamageError", "read_index", "read_member"]

_BLOCK = 512
_LARGEST_NAME = 1 << 16
_LARGEST_PAX = 1 << 20
_MOST_MEMBERS = 10_000_000
"""Files of one archive: as many empty files take 5 GB."""

_FILE = b"0\0" + b"7"
_FOLDER = b"5"
_LONG_NAME, _LONG_LINK = b"L", b"K"
_PAX, _PAX_GLOBAL = b"x", b"g"
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x28\xb5": "zstd"}


class TarDamageError(ValueError):
    """An archive cannot be read from here on."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive.

    Args:
        name: its name, only ever used as a key.
        offset: where its content begins.
        size: the bytes of its content.
    """

    name: str
    offset: int
    size: int


def read_index(path: Path) -> Iterator[Member]:
    """The files of an archive, in their order; reads only headers.

    The formats are ustar, GNU tar and pax. Folders are left out. Names are not paths here: nothing
    is written, so ``..`` or a leading ``/`` has no effect.

    Raises:
        TarDamageError: the archive is damaged, compressed, truncated, has too many files, or has a
            member that is no file: a link, a device or a sparse file.
        OSError: it cannot be read.
        DataError: it is not a regular file.
    """
    with open_data(path) as file:
        end = os.fstat(file.fileno()).st_size
        position, members = 0, 0
        name: str | None = None
        size: int | None = None
        while header := _read_header(file, position, end):
            kind = header[156:157]
            length = _number(header[124:136])
            start = position + _BLOCK
            if kind in (_PAX, _PAX_GLOBAL, _LONG_NAME, _LONG_LINK):
                most = _LARGEST_PAX if kind in (_PAX, _PAX_GLOBAL) else _LARGEST_NAME
                if length > most:
                    raise TarDamageError(f"an extended header has {length:,} bytes")
                content = _content(file, start, length, end)
                if kind == _LONG_NAME:
                    name = _text(content)
                elif kind == _PAX:
                    record = _pax(content)
                    name, size = record.get("path", name), _pax_size(record, size)
                position = start + _padded(length)
                continue
            full = name if name is not None else _name(header)
            length = length if size is None else size
            name = size = None
            if kind not in _FILE and kind != _FOLDER:
                raise TarDamageError(f"{clean_remote(full, 100)!r} is not a file but {_what(kind)}")
            if kind == _FOLDER or full.endswith("/"):
                length = 0
            else:
                members += 1
                if members > _MOST_MEMBERS:
                    raise TarDamageError(f"it has more than {_MOST_MEMBERS:,} files")
                if start + length > end:
                    raise TarDamageError(
                        f"it ends within {clean_remote(full, 100)!r}; it is truncated"
                    )
                yield Member(full, start, length)
            position = start + _padded(length)


def read_member(path: Path, offset: int, size: int) -> bytes:
    """The content of a file in an archive.

    Raises:
        OSError: the archive cannot be read, or has become shorter.
        DataError: it is not a regular file.
    """
    with open_data(path) as file:
        file.seek(offset)
        content = file.read(size)
    if len(content) < size:
        raise OSError(f"the archive has become shorter: {len(content)} of {size} bytes")
    return content


def _read_header(file: BinaryIO, position: int, end: int) -> bytes | None:
    """The header at a position; None at the end of the archive."""
    header = _content(file, position, _BLOCK, end)
    if not any(header):
        return None
    # The checksum counts its own field as spaces.
    actual = sum(header) - sum(header[148:156]) + 8 * ord(" ")
    if _checksum(header) != actual:
        for start, method in _COMPRESSED.items():
            if position == 0 and header.startswith(start):
                raise TarDamageError(f"it is compressed with {method}; store it uncompressed")
        raise TarDamageError(f"the header at byte {position:,} has a wrong checksum")
    return header


def _content(file: BinaryIO, start: int, size: int, end: int) -> bytes:
    if start + size > end:
        raise TarDamageError(f"it ends at byte {end:,} without its end mark; it is truncated")
    file.seek(start)
    return file.read(size)


def _number(field: bytes) -> int:
    """A number of a header: octal, or binary if the first bit is set."""
    if field[0] & 0x80:
        value = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
        if field[0] & 0x40 or value >= 1 << 62:
            raise TarDamageError("a header states an impossible number")
        return value
    text = field.strip(b" \0")
    if not text:
        return 0
    if not all(digit in b"01234567" for digit in text):
        raise TarDamageError("a header has a number that is not octal")
    return int(text, 8)


def _checksum(header: bytes) -> int | None:
    try:
        return _number(header[148:156])
    except TarDamageError:
        return None


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _name(header: bytes) -> str:
    name = _text(header[:100])
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _pax(content: bytes) -> dict[str, str]:
    """The records ``LENGTH KEY=VALUE`` of a pax header."""
    records, position = {}, 0
    while position < len(content):
        length, _, _ = content[position : position + 20].partition(b" ")
        if not length.isdigit() or not 0 < int(length) <= len(content) - position:
            raise TarDamageError("a pax header is malformed")
        record = content[position + len(length) + 1 : position + int(length) - 1]
        key, _, value = record.partition(b"=")
        records[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        position += int(length)
    if any(key.startswith("GNU.sparse") for key in records):
        raise TarDamageError("it has a sparse file")
    return records


def _pax_size(records: dict[str, str], before: int | None) -> int | None:
    text = records.get("size")
    if text is None:
        return before
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise TarDamageError("a pax header states an impossible size")
    return int(text)


def _what(kind: bytes) -> str:
    names = {b"1": "a link", b"2": "a link", b"3": "a device", b"4": "a device", b"6": "a pipe"}
    return names.get(kind, "a sparse file" if kind == b"S" else f"of type {kind!r}")
