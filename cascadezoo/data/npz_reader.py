"""Reads arrays, or their first rows, from an ``.npz`` file. Never unpickles."""

from __future__ import annotations

import lzma
import math
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
from typing import IO, Any, Self

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from cascadezoo.data.memory import require_memory
from cascadezoo.errors import DataError

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
        DataError: the file is missing, not readable, or not a zip archive.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except FileNotFoundError as error:
            raise DataError(
                f"file {path} not found",
                hint="a relative path starts from the current directory",
                code="data-no-file",
                path=path,
            ) from error
        except _DAMAGE as error:
            raise DataError(
                f"{path} is not a readable .npz file: {_reason(error)}",
                hint=_hint(path),
                code="data-npz-unreadable",
                path=path,
            ) from error
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
            ResourceError: the array is larger than the machine's memory.
        """
        with self._open(key) as (file, header):
            shape = header.shape
            partial = rows is not None and bool(shape) and rows < shape[0]
            # In Fortran order the first rows are spread over the whole array.
            if partial and not header.fortran_order:
                shape = (rows or 0, *shape[1:])
            size = math.prod(shape) * header.dtype.itemsize
            require_memory(
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

    @contextmanager
    def _open(self, key: str) -> Iterator[tuple[IO[bytes], ArrayHeader]]:
        if key not in self.keys:
            raise DataError(
                f"{self.path} has no array {key!r}",
                hint=f"it has {', '.join(self.keys) or 'none'}",
                code="data-no-array",
                path=self.path,
                name=key,
            )
        try:
            entry = self._zip.getinfo(f"{key}.npy")
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
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        with warnings.catch_warnings():
            # Unusual headers cause warnings, but only errors matter.
            warnings.simplefilter("ignore")
            shape, fortran_order, dtype = read(file)
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


def _hint(path: Path) -> str:
    try:
        with path.open("rb") as file:
            start = file.read(6)
    except OSError:
        return "give the path of a readable file"
    if start == b"\x93NUMPY":
        return "it is a single .npy array; save it with numpy.savez(path, images=..., labels=...)"
    return "create it with numpy.savez(path, images=..., labels=...), or download it again"
