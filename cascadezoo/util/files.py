"""Files: atomic writes, full disks, refused links and special files, sha256, the cache folder."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import re
import stat
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal

from cascadezoo.errors import DiskFullError

__all__ = [
    "FileRefusedError",
    "cache_folder",
    "check_writable",
    "disk_full",
    "is_alive",
    "is_leftover",
    "open_regular",
    "opened_path",
    "refuse_linked_folders",
    "sha256_of",
    "sync_folder",
    "system_error",
    "temporary_of",
    "write_atomically",
    "writing_to",
]

SPACE = "free space on that disk, then run the same command again"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

_TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<pid>[0-9]{1,10})\.tmp")


class FileRefusedError(OSError):
    """A file that is not opened.

    Args:
        path: the file.
        reason: it is a link or in a linked folder, is not a regular file, or is too large.
        text: the reason in words, to follow the name of the file.
    """

    def __init__(self, path: Path, reason: Literal["link", "special", "size"], text: str) -> None:
        number = {"link": errno.ELOOP, "special": errno.EINVAL, "size": errno.EFBIG}[reason]
        super().__init__(number, text, str(path))
        self.reason = reason
        self.text = text


def open_regular(folder: Path, name: str, limit: int | None = None) -> io.BufferedReader:
    """Open a regular file for reading; never a link, a pipe or a device.

    Links in the path of ``folder`` itself are followed: the user chose that path.

    Args:
        folder: the folder that the name is relative to.
        name: the relative path of the file, with ``/``.
        limit: the largest accepted size in bytes; None accepts any.

    Raises:
        FileRefusedError: the file or a folder below ``folder`` is a link, or the file is not a
            regular file, or is larger than the limit.
        FileNotFoundError: the file does not exist.
        OSError: it cannot be read.
    """
    refuse_linked_folders(folder, name)
    path = folder / name
    # Opening a device may act on it, so its kind is checked before and after.
    _require_regular(path, path.lstat(), limit)
    try:
        file = open(path, "rb", opener=_open_no_link)  # noqa: SIM115
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise FileRefusedError(path, "link", "is a symbolic link") from None
        raise
    try:
        _require_regular(path, os.fstat(file.fileno()), limit)
    except FileRefusedError:
        file.close()
        raise
    return file


def _open_no_link(path: str, flags: int) -> int:
    # Without O_NONBLOCK, opening a pipe waits for a writer.
    for name in ("O_NOFOLLOW", "O_NONBLOCK"):  # Windows has neither
        flags |= getattr(os, name, 0)
    return os.open(path, flags)


def opened_path(file: BinaryIO) -> str:
    """A path of an open file, for libraries that accept only paths.

    It leads to the open file itself, even if another file has taken the place of its name.
    """
    path = f"/dev/fd/{file.fileno()}"
    return path if Path(path).exists() else str(file.name)


def refuse_linked_folders(folder: Path, name: str) -> None:
    """Check that no folder between ``folder`` and a file below it is a link.

    Raises:
        FileRefusedError: one is a link.
    """
    for part in reversed(Path(name).parents[:-1]):
        if (folder / part).is_symlink():
            raise FileRefusedError(
                folder / name, "link", f"is in {part.as_posix()}, which is a symbolic link"
            )


def _require_regular(path: Path, row: os.stat_result, limit: int | None) -> None:
    if stat.S_ISLNK(row.st_mode):
        raise FileRefusedError(path, "link", "is a symbolic link")
    if not stat.S_ISREG(row.st_mode):
        raise FileRefusedError(path, "special", "is not a regular file")
    if limit is not None and row.st_size > limit:
        raise FileRefusedError(
            path, "size", f"has {row.st_size} bytes, more than the limit of {limit}"
        )


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file. After a crash it holds either its old or its new content, never a part.

    Temporary files that ended processes left of this file are removed.
    """
    _remove_stale(path)
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
    tempfile.TemporaryFile(dir=folder).close()  # without a name: a kill leaves nothing


def is_leftover(path: Path, names: Collection[str]) -> bool:
    """Whether a killed process left a file of :func:`check_writable` or :func:`write_atomically`.

    Args:
        path: the file.
        names: the names of the files that are written in this folder.
    """
    owner = temporary_of(path.name)
    probe = re.fullmatch(r"\.write-test\.\d+", path.name)
    return (probe is not None or (owner is not None and owner[0] in names)) and not path.is_dir()


def system_error(error: BaseException) -> OSError | None:
    """The operating system's error that caused an error; None if there is none.

    torch hides it behind a RuntimeError, safetensors in the text of an error of its own.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, FileRefusedError):
            return None  # it was not opened, so nothing was written
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


def temporary_of(name: str) -> tuple[str, int] | None:
    """The file and the process that a temporary file belongs to; None for other files.

    >>> temporary_of(".config.json.812.tmp"), temporary_of("config.json")
    (('config.json', 812), None)
    """
    match = _TEMPORARY.fullmatch(name)
    return None if match is None else (match["name"], int(match["pid"]))


def is_alive(pid: int) -> bool:
    """Whether a process of that number runs on this machine."""
    if pid < 1:
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:  # of another user
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def _remove_stale(path: Path) -> None:
    # A folder that cannot be listed or changed fails at the write itself, with a better message.
    with contextlib.suppress(OSError):
        for other in list(path.parent.iterdir()):
            owner = temporary_of(other.name)
            if owner is not None and owner[0] == path.name and not is_alive(owner[1]):
                other.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Write the names in a folder to the disk, so that they outlast a power failure."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def cache_folder() -> Path:
    """``$CASCADEZOO_CACHE``, or ``~/.cache/cascadezoo``."""
    root = os.environ.get("CASCADEZOO_CACHE")
    return Path(root).expanduser() if root else Path.home() / ".cache" / "cascadezoo"
