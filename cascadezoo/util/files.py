"""Atomic writes, full disks, sha256 of files, and the cache folder."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from cascadezoo.errors import DiskFullError

__all__ = [
    "cache_folder",
    "check_writable",
    "disk_full",
    "is_leftover",
    "sha256_of",
    "system_error",
    "write_atomically",
    "writing_to",
]

SPACE = "free space on that disk, then run the same command again"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file. After a crash it holds either its old or its new content, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Check that files can be created in a folder.

    Raises:
        OSError: they cannot.
    """
    probe = folder / f".write-test.{os.getpid()}"
    probe.write_bytes(b"")
    probe.unlink(missing_ok=True)


def is_leftover(path: Path, names: Collection[str]) -> bool:
    """Whether a killed process left a file of :func:`check_writable` or :func:`write_atomically`.

    Args:
        path: the file.
        names: the names of the files that are written in this folder.
    """
    match = re.fullmatch(r"\.write-test\.\d+|\.(?P<name>.+)\.\d+\.tmp", path.name)
    if match is None or (match["name"] is not None and match["name"] not in names):
        return False
    return not path.is_dir()


def system_error(error: BaseException) -> OSError | None:
    """The operating system's error that caused an error; None if there is none.

    torch hides it behind a RuntimeError, safetensors in the text of an error of its own.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno is not None:
            return cause
        if match := re.search(r"\(os error (\d{1,4})\)", str(cause)):
            return OSError(int(match[1]), os.strerror(int(match[1])))
        cause = cause.__cause__ or cause.__context__
    return None


def disk_full(
    error: BaseException,
    path: Path,
    *,
    hint: str = SPACE,
) -> DiskFullError | None:
    """The error for a file that does not fit on its disk; None if the cause is another one.

    Args:
        error: the error of the write.
        path: the file or folder.
        hint: what to do.
    """
    cause = system_error(error)
    if cause is None or cause.errno not in _FULL:
        return None
    return DiskFullError(f"cannot write {path}: {os.strerror(cause.errno)}", hint=hint, path=path)


@contextmanager
def writing_to(path: Path, *, hint: str = SPACE) -> Iterator[None]:
    """A context that reports a full disk; other errors pass.

    Args:
        path: the file or folder that is written in it.
        hint: what to do.

    Raises:
        DiskFullError: the disk is full.
    """
    try:
        yield
    except OSError as error:
        full = disk_full(error, path, hint=hint)
        if full is None:
            raise
        raise full from error


def cache_folder() -> Path:
    """``$CASCADEZOO_CACHE``, or ``~/.cache/cascadezoo``."""
    root = os.environ.get("CASCADEZOO_CACHE")
    return Path(root).expanduser() if root else Path.home() / ".cache" / "cascadezoo"
