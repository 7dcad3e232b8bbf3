"""Changes of a model folder in one step, which a kill or a power failure cannot divide.

1. The new files are written and synced in ``.change.PID.tmp`` inside the folder, with a list of
   the files that are replaced and removed.
2. One rename to ``.change`` decides. Before it the old version stands, and after it the new one.
3. The files are moved to their places, config.json last, and ``.change`` is removed.

Readers take the new files from ``.change`` as long as they are there. The next command that writes
finishes a change that is decided, and removes what ended processes left of other ones. Writers
lock the folder itself, without a file; a process that ends releases its lock.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cascadezoo.errors import RunFolderError, RunLockedError
from cascadezoo.model_folder.files import (
    CHANGE,
    CONFIG,
    MANIFEST,
    is_temporary,
    model_files,
    pending_change,
    refused,
)
from cascadezoo.util.files import (
    FileRefusedError,
    is_alive,
    refuse_linked_folders,
    sync_folder,
    temporary_of,
)

__all__ = ["new_version", "recover"]

LONGEST_WAIT = 60.0
"""Seconds that a command waits for another one that changes the same folder."""
_PAUSE = 0.02


@contextmanager
def new_version(folder: Path, *, whole: bool = False) -> Iterator[Path]:
    """Yield an empty folder for new files, which replace those of a model in one step.

    If the block raises, the model folder keeps its old version.

    Args:
        folder: the model folder.
        whole: whether the new files are the whole model; its other files are then removed.

    Raises:
        RunLockedError: another command is changing the folder.
        ModelError: the folder contains a link or a file that is not part of a model.
        RunFolderError: the folder cannot be written.
    """
    new = folder / f"{CHANGE}.{os.getpid()}.tmp"
    with _locked(folder):
        with _writing(folder):
            _tidy(folder)
            new.mkdir()
        try:
            yield new
            with _writing(folder):
                _decide(folder, new, whole=whole)
        finally:
            shutil.rmtree(new, ignore_errors=True)
        with _writing(folder):
            _finish(folder)


def recover(folder: Path) -> None:
    """Finish an interrupted change of a model folder, and remove its temporary files.

    Files of running processes are kept. Does nothing in a folder without such files.

    Raises:
        RunLockedError: another command is changing the folder.
        ModelError: the list of the interrupted change is damaged.
        RunFolderError: the folder cannot be written.
    """
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError:
        return  # the command itself says so
    if any(name == CHANGE or _is_stale(name) for name in names):
        with _locked(folder), _writing(folder):
            _tidy(folder)


# --- the steps


def _decide(folder: Path, new: Path, *, whole: bool) -> None:
    files = sorted(p.relative_to(new).as_posix() for p in new.rglob("*") if p.is_file())
    removed = [name for name in model_files(folder) if name not in files] if whole else []
    manifest = new / Path(MANIFEST).name
    manifest.write_text(json.dumps({"format": 1, "files": files, "removed": removed}))
    for name in (*files, manifest.name):
        with (new / name).open("rb") as file:
            os.fsync(file.fileno())
    for path in (*(p for p in new.rglob("*") if p.is_dir()), new):
        sync_folder(path)
    new.rename(folder / CHANGE)  # the decision
    sync_folder(folder)


def _finish(folder: Path) -> None:
    """Move the files of a decided change to their places."""
    change = pending_change(folder)
    if change is None:
        return
    for name in sorted(change.files - {CONFIG}):
        _move(folder, name)
    for name in sorted(change.removed):
        refuse_linked_folders(folder, name)
        (folder / name).unlink(missing_ok=True)
        with suppress(OSError):  # the folder of a stage that still has files
            (folder / name).parent.rmdir()
    for path in {(folder / name).parent for name in (*change.files, *change.removed)}:
        with suppress(FileNotFoundError):
            sync_folder(path)
    # Last: before it, programs that do not know .change see the old config.json.
    if CONFIG in change.files:
        _move(folder, CONFIG)
    sync_folder(folder)
    (folder / MANIFEST).unlink()
    _remove_empty(folder / CHANGE)


def _move(folder: Path, name: str) -> None:
    # A list from elsewhere may name files in linked folders.
    for place in (name, f"{CHANGE}/{name}"):
        refuse_linked_folders(folder, place)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):  # in its place already
        (folder / CHANGE / name).replace(folder / name)


def _tidy(folder: Path) -> None:
    """Finish a decided change and remove the files of undecided ones; with the lock."""
    _finish(folder)
    _remove_empty(folder / CHANGE)
    for path in list(folder.iterdir()):
        if not _is_stale(path.name) or path.is_symlink():
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _is_stale(name: str) -> bool:
    """Whether a name is that of a temporary file whose process has ended."""
    owner = temporary_of(name)
    if owner is None or not is_temporary(name):
        return False
    # Processes in containers share numbers; this one has no such file while it holds the lock.
    return owner[1] == os.getpid() or not is_alive(owner[1])


def _remove_empty(folder: Path) -> None:
    """Remove a folder and its folders if they contain no files."""
    if folder.is_symlink() or not folder.is_dir():
        return
    for path, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):
            Path(path).rmdir()


# --- the lock


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock a folder for one writer; on file systems without locks, do nothing."""
    limit = time.monotonic() + LONGEST_WAIT
    while True:
        with _writing(folder):
            number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if _lock(number, folder, limit) and not _is_open(number, folder):
                continue  # replaced by another folder while this process waited
            yield
            return
        finally:
            os.close(number)


def _lock(number: int, folder: Path, limit: float) -> bool:
    """Wait for the lock of an open folder; False if its file system has no locks."""
    import fcntl  # not on Windows, where models can be loaded

    while True:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > limit:
                raise RunLockedError(
                    f"another command is changing {folder}",
                    hint="wait for it to end, then run the same command again",
                    code="locked-model",
                    path=folder,
                ) from None
            time.sleep(_PAUSE)
        except OSError as error:
            if error.errno not in (errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOTSUP):
                raise
            return False
        else:
            return True


def _is_open(number: int, folder: Path) -> bool:
    """Whether an open folder is still the one of that path."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(number), folder.stat())
    return False


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Translate errors of the file system."""
    try:
        yield
    except FileRefusedError as error:
        name = Path(str(error.filename)).relative_to(folder).as_posix()
        raise refused(folder, name, error) from error
    except OSError as error:
        raise RunFolderError(
            f"cannot write to {folder}: {error.strerror or error}",
            hint="free some space or check the permissions, then run the same command again",
            code="run-folder-not-writable",
            path=folder,
        ) from error
