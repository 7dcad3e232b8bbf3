"""Paths and files of a dataset: paths that a system can have, and only regular files are opened."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from cascadezoo.errors import DataError
from cascadezoo.util.text import clean_remote

__all__ = ["data_path", "open_data"]

_SHOWN = 200


def data_path(text: str) -> Path:
    """The path that a spec or an environment variable names; ``~`` and ``~user`` are expanded.

    Raises:
        DataError: no file can have this path, or the home folder is unknown.
    """
    shown = clean_remote(text, _SHOWN)
    try:
        os.fsencode(text)
        if "\0" in text:
            raise ValueError("it contains a NUL character")
        return Path(text).expanduser()
    except (ValueError, RuntimeError) as error:
        reason = "it is not valid text" if isinstance(error, UnicodeError) else str(error)
        raise DataError(
            f"the path {shown!r} is not possible: {reason}",
            hint="give the path of an existing file or folder, without ~ if the user is unknown",
            code="data-path-invalid",
            path=shown,
        ) from None


def open_data(path: Path) -> BinaryIO:
    """Open a file of a dataset to read it. Links are followed.

    A pipe, a device or a socket is not opened for reading: it may never answer or never end.

    Raises:
        OSError: the file is missing or not readable.
        DataError: it is not a regular file.
    """
    # Opening a device may already change it.
    _require_file(path, path.stat().st_mode)
    # Without O_NONBLOCK, opening a pipe waits for its writer.
    flags = os.O_RDONLY
    for name in ("O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY"):
        flags |= getattr(os, name, 0)
    descriptor = os.open(path, flags)
    try:
        _require_file(path, os.fstat(descriptor).st_mode)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _require_file(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise DataError(
            f"{path} is {_kind(mode)}, not a file",
            hint="copy its content to a file",
            code="data-not-a-file",
            path=path,
        )


def _kind(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "a pipe"
    if stat.S_ISSOCK(mode):
        return "a socket"
    return "a device"
