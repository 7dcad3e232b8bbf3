"""Reads arrays, or their first rows, from an ``.npz`` file. Never unpickles."""

from __future__ import annotations

import io
import lzma
import math
import os
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, BinaryIO, Self

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from cascadezoo.data.files import open_data
from cascadezoo.data.memory import require_data
from cascadezoo.errors import DataError
from cascadezoo.util.limits import LARGEST_ARRAYS
from cascadezoo.util.text import clean_remote

__all__ = ["ArrayHeader", "NpzReader"]

_DAMAGE = (
    # Exceptions of zipfile, its decompressors and numpy's header parser for damaged bytes.
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    tokenize.TokenError,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    SyntaxError,
    OverflowError,
    RecursionError,
    NotImplementedError,
    RuntimeError,
    MemoryError,
)
_CHUNK_BYTES = 2**22
_LARGEST_HEADER = 10_000
_SHOWN = 8


@dataclass(frozen=True, slots=True)
class ArrayHeader:
    """Shape, type and memory order of an array, from its first bytes."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool

    @property
    def nbytes(self) -> int:
        """The size of the array's data."""
        return math.prod(self.shape) * self.dtype.itemsize


class NpzReader:
    """An open ``.npz`` file; use it as a context manager.

    Args:
        path: the file.

    Raises:
        DataError: the file is missing, not readable, not a regular file, or not a zip archive.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = _Bounded(open_data(path))
        except FileNotFoundError as error:
            raise DataError(
                f"file {path} not found",
                hint="a relative path starts from the current directory",
                code="data-no-file",
                path=path,
            ) from error
        except OSError as error:
            raise self._unreadable(error, "give the path of a readable file") from error
        try:
            self._zip = zipfile.ZipFile(self._file)
        except _DAMAGE as error:
            hint = self._hint()
            self._file.close()
            raise self._unreadable(error, hint) from error
        self.keys = tuple(
            name.removesuffix(".npy") for name in self._zip.namelist() if name.endswith(".npy")
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._zip.close()
        self._file.close()

    def __contains__(self, key: str) -> bool:
        return key in self.keys

    def header(self, key: str) -> ArrayHeader:
        """Shape and type of an array; reads about a hundred bytes.

        Raises:
            DataError: the array is missing, its header is damaged, or it contains Python objects.
        """
        with self._open(key) as (_, header):
            return header

    def read(self, key: str, rows: int | None = None) -> NDArray[Any]:
        """An array, or its first ``rows`` rows.

        Args:
            key: the name of the array in the file.
            rows: number of rows; None reads all.

        Returns:
            A new array, C-contiguous and writable.

        Raises:
            DataError: the array is missing or damaged.
            ResourceError: the array is larger than the limit or the machine's memory.
        """
        with self._open(key) as (file, header):
            shape = header.shape
            partial = rows is not None and bool(shape) and rows < shape[0]
            # In Fortran order the first rows are spread over the whole array.
            if partial and not header.fortran_order:
                shape = (rows or 0, *shape[1:])
            size = math.prod(shape) * header.dtype.itemsize
            require_data(
                size, f"{self.path}: array {key!r}", hint="set data.config.limit to use fewer"
            )
            flat = np.empty(size, dtype=np.uint8)
            self._fill(file, flat.data)
            file.read(1)  # at the end of the data zipfile checks the checksum
            array = flat.view(header.dtype)
            if header.fortran_order:
                array = np.ascontiguousarray(array.reshape(shape[::-1]).T)
                return array[:rows] if partial else array
            return array.reshape(shape)

    def blocks(self, key: str) -> Iterator[NDArray[Any]]:
        """The elements of an array in the order of the file, a few MiB at a time.

        Yields:
            Arrays of one dimension, in the native byte order of the file.

        Raises:
            DataError: the array is missing or damaged.
        """
        with self._open(key) as (file, header):
            left, size = header.nbytes, header.dtype.itemsize
            step = max(1, _CHUNK_BYTES // max(1, size)) * size
            while left > 0:
                flat = np.empty(min(step, left), dtype=np.uint8)
                self._fill(file, flat.data)
                left -= len(flat)
                yield flat.view(header.dtype)
            file.read(1)  # checks the checksum

    @property
    def listed(self) -> str:
        """The names of the first arrays, for messages."""
        names = [clean_remote(key, 60) for key in self.keys[:_SHOWN]]
        more = [f"{len(self.keys) - _SHOWN:,} more"] if len(self.keys) > _SHOWN else []
        return ", ".join([*names, *more]) or "no arrays"

    @contextmanager
    def _open(self, key: str) -> Iterator[tuple[IO[bytes], ArrayHeader]]:
        if key not in self.keys:
            raise DataError(
                f"{self.path} has no array {key!r}",
                hint=f"it has {self.listed}",
                code="data-no-array",
                path=self.path,
                name=key,
            )
        try:
            entry = self._zip.getinfo(f"{key}.npy")
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                # zipfile does not bound what the other methods unpack at once.
                raise ValueError(f"compression method {entry.compress_type} is not supported")
            with self._zip.open(entry) as file:
                header = self._header(file, key)
                if header.nbytes != entry.file_size - file.tell():
                    raise ValueError(
                        f"its header states {header.nbytes:,} bytes of data, but there are "
                        f"{entry.file_size - file.tell():,}"
                    )
                yield file, header
        except _DAMAGE as error:
            raise DataError(
                f"{self.path}: array {key!r} is damaged: {_reason(error)}",
                hint="create or download the file again",
                code="data-array-damaged",
                path=self.path,
                name=key,
            ) from error

    def _header(self, file: IO[bytes], key: str) -> ArrayHeader:
        version = npy.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"version {version} of the .npy format is not supported")
        # Numpy reads the whole header before it checks its length, which may be 4 GiB.
        start = file.read(2 if version == (1, 0) else 4)
        length = int.from_bytes(start, "little")
        if length > _LARGEST_HEADER:
            raise ValueError(f"its header has {length:,} bytes")
        text = io.BytesIO(start + file.read(length))
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        with warnings.catch_warnings():
            # Unusual headers cause warnings, but only errors matter.
            warnings.simplefilter("ignore")
            shape, fortran_order, dtype = read(text)
        if dtype.hasobject:
            raise DataError(
                f"{self.path}: array {key!r} contains Python objects, which are never unpickled",
                hint="save it as numbers (uint8 images, integer labels) or as text (dtype 'U')",
                code="data-array-objects",
                path=self.path,
                name=key,
            )
        if any(length < 0 for length in shape):
            raise ValueError(f"its shape is {shape}")
        return ArrayHeader(tuple(int(length) for length in shape), dtype, bool(fortran_order))

    def _unreadable(self, error: BaseException, hint: str) -> DataError:
        return DataError(
            f"{self.path} is not a readable .npz file: {_reason(error)}",
            hint=hint,
            code="data-npz-unreadable",
            path=self.path,
        )

    def _hint(self) -> str:
        try:
            self._file.seek(0)
            start = self._file.read(6)
        except OSError:
            return "give the path of a readable file"
        if start == b"\x93NUMPY":
            return "it is one .npy array; save it with numpy.savez(path, images=..., labels=...)"
        return "create it with numpy.savez(path, images=..., labels=...), or download it again"

    @staticmethod
    def _fill(file: IO[bytes], target: memoryview) -> None:
        done = 0
        while done < len(target):
            part = file.read(min(_CHUNK_BYTES, len(target) - done))
            if not part:
                raise EOFError(f"it ends after {done:,} of {len(target):,} bytes")
            target[done : done + len(part)] = part
            done += len(part)


def _reason(error: BaseException) -> str:
    text = (str(error).splitlines() or [""])[0]
    return text or type(error).__name__


class _Bounded(io.BufferedIOBase):
    """A file that refuses to read more at once than zipfile needs.

    zipfile reads the table of contents at once, with the length that the file claims.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._inner = file

    def read(self, size: int | None = -1) -> bytes:
        """Read up to ``size`` bytes, or the rest of the file."""
        most = max(LARGEST_ARRAYS, _CHUNK_BYTES)
        size = most + 1 if size is None or size < 0 else size
        data = self._inner.read(min(size, most + 1))
        if len(data) > most:
            raise ValueError("its table of contents is too large")
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Change the position."""
        return self._inner.seek(offset, whence)

    def tell(self) -> int:
        """The position."""
        return self._inner.tell()

    def seekable(self) -> bool:
        """A regular file is seekable."""
        return True

    def readable(self) -> bool:
        """The file is open for reading."""
        return True

    def close(self) -> None:
        """Close the file."""
        self._inner.close()
        super().close()
