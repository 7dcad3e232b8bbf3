"""The files of a model folder: their names, and the only functions that open them.

No link, pipe or device is opened, and no file above the limit of its name. The links of a snapshot
in the Hub's cache are followed, but only into the blobs of its repo.

A change of the folder that a kill interrupted after its decision is read as if it were finished;
see :mod:`cascadezoo.model_folder.change`.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cascadezoo.errors import ModelError
from cascadezoo.model_folder.snapshots import is_cache_link, is_snapshot
from cascadezoo.util.files import FileRefusedError, open_regular, temporary_of
from cascadezoo.util.limits import (
    LARGEST_CARD,
    LARGEST_JSON,
    LARGEST_METRICS,
    LARGEST_SAMPLES,
    LARGEST_WEIGHTS,
)

__all__ = [
    "CARD",
    "CHANGE",
    "CONFIG",
    "MANIFEST",
    "METRICS",
    "REPAIR",
    "SAMPLES",
    "PendingChange",
    "file_exists",
    "file_sha256",
    "file_size",
    "is_model_file",
    "is_temporary",
    "model_files",
    "open_file",
    "pending_change",
    "read_file",
    "refused",
    "stat_file",
    "weights_path",
]

CARD = "README.md"
CONFIG = "config.json"
METRICS = "metrics.json"
SAMPLES = "samples.png"

CHANGE = ".change"
"""The new files of a change that is decided and not yet finished."""
MANIFEST = f"{CHANGE}/change.json"
"""The names of these files, and of the files that the change removes."""

REPAIR = "pull or copy the model again"
"""The hint of errors about damaged files."""

_WEIGHTS = re.compile(r"stages/[a-z][a-z0-9_-]{0,39}/model\.safetensors")
_LIMITS = {
    CONFIG: LARGEST_JSON,
    CARD: LARGEST_CARD,
    METRICS: LARGEST_METRICS,
    SAMPLES: LARGEST_SAMPLES,
}


def weights_path(stage: str) -> str:
    """The path of a stage's weights in a model folder."""
    return f"stages/{stage}/model.safetensors"


def is_model_file(name: str) -> bool:
    """Whether a relative path is part of the layout of a model folder."""
    return name in (CARD, METRICS, SAMPLES) or _WEIGHTS.fullmatch(name) is not None


def is_temporary(name: str) -> bool:
    """Whether a name in a model folder is that of a temporary file of cascadezoo.

    >>> is_temporary(".config.json.812.tmp"), is_temporary(".notes.812.tmp")
    (True, False)
    """
    owner = temporary_of(name)
    return owner is not None and owner[0] in ("change", *_LIMITS)


# --- opening


def open_file(folder: Path, name: str) -> io.BufferedReader:
    """Open a file of a model folder.

    Args:
        folder: the model folder.
        name: the relative path of the file.

    Raises:
        FileRefusedError: it is a link, is not a regular file, or is too large.
        FileNotFoundError: it does not exist.
        OSError: it cannot be read.
    """
    limit = _LIMITS.get(name, LARGEST_WEIGHTS)
    path = folder / name
    if is_snapshot(folder):
        if path.is_symlink() and is_cache_link(folder, path):
            blob = Path(os.path.realpath(path))
            return open_regular(blob.parent, blob.name, limit)
        return open_regular(folder, name, limit)
    change = pending_change(folder)
    if change is not None and name in change.files:
        try:
            return open_regular(folder, f"{CHANGE}/{name}", limit)
        except FileNotFoundError:
            pass  # in its place already
    if change is not None and name in change.removed:
        raise FileNotFoundError(2, os.strerror(2), str(path))
    return open_regular(folder, name, limit)


def read_file(folder: Path, name: str) -> bytes:
    """Return the content of a small file of a model folder.

    Raises:
        FileNotFoundError: it does not exist.
        ModelError: it is a link, is not a regular file, is too large, or cannot be read.
    """
    try:
        with open_file(folder, name) as file:
            return file.read(os.fstat(file.fileno()).st_size)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise refused(folder, name, error) from error


def stat_file(folder: Path, name: str) -> os.stat_result:
    """Return size, times and inode of a file of a model folder; errors as in :func:`open_file`."""
    with open_file(folder, name) as file:
        return os.fstat(file.fileno())


def file_size(folder: Path, name: str) -> int:
    """Return the size in bytes of a file of a model folder; errors as in :func:`read_file`."""
    try:
        return stat_file(folder, name).st_size
    except FileNotFoundError:
        raise
    except OSError as error:
        raise refused(folder, name, error) from error


def file_exists(folder: Path, name: str) -> bool:
    """Whether a model folder has a file of that name, even if it cannot be read."""
    try:
        open_file(folder, name).close()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def file_sha256(folder: Path, name: str) -> str:
    """Return the sha256 of a file of a model folder; errors as in :func:`open_file`."""
    with open_file(folder, name) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refused(folder: Path, name: str, error: OSError) -> ModelError:
    """Return the error for a file of a model folder that cannot be opened."""
    path = folder / name
    if not isinstance(error, FileRefusedError):
        return ModelError(
            f"{path} cannot be read: {error.strerror}",
            hint="check its permissions",
            code="model-file-unreadable",
            path=path,
            name=name,
        )
    what = f"{folder}: {name} {error.text}"
    if error.reason == "link":
        hint = "copy the file itself"
        if folder.parent.name == "snapshots":
            hint = "links are followed only in the Hub's cache in use; set HF_HUB_CACHE to it"
        return ModelError(what, hint=hint, code="model-symlink", path=path, name=name)
    if error.reason == "special":
        return ModelError(what, hint=REPAIR, code="model-file-special", path=path, name=name)
    return ModelError(what, hint=REPAIR, code="model-file-too-large", path=path, name=name)


# --- the files of a folder


def model_files(folder: Path) -> Iterator[str]:
    """Yield the files of a model folder except config.json, as sorted relative paths.

    Temporary files of cascadezoo are left out.

    Raises:
        ModelError: a file in the folder is a link or not part of a model.
    """
    change = pending_change(folder)
    names = set() if change is None else set(change.files)
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        top = name.partition("/")[0]
        if (change is not None and top == CHANGE) or (
            is_temporary(top) and not (folder / top).is_symlink()
        ):
            continue
        if path.is_symlink():
            raise ModelError(
                f"{folder}: {name} is a symbolic link",
                hint="copy the file itself",
                code="model-symlink",
                path=folder,
                name=name,
            )
        if path.is_dir() or name == CONFIG:
            continue
        if not is_model_file(name):
            raise ModelError(
                f"{folder}: {name} is not part of a model",
                hint="move the file elsewhere",
                code="model-file-strange",
                path=folder,
                name=name,
            )
        names.add(name)
    removed = frozenset() if change is None else change.removed
    yield from sorted(names - removed - {CONFIG})


@dataclass(frozen=True, slots=True)
class PendingChange:
    """A change of a model folder that is decided and not yet finished.

    Args:
        files: the new files; those that are not in ``.change/`` are in their places already.
        removed: the files that the new version lacks.
    """

    files: frozenset[str]
    removed: frozenset[str]


def pending_change(folder: Path) -> PendingChange | None:
    """Read the change of a model folder that a kill interrupted; None if there is none.

    Raises:
        ModelError: its list of files is damaged, or a link.
    """
    try:
        with open_regular(folder, MANIFEST, LARGEST_JSON) as file:
            text = file.read(LARGEST_JSON + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise refused(folder, MANIFEST, error) from error
    try:
        data = json.loads(text)
        change = PendingChange(frozenset(data["files"]), frozenset(data["removed"]))
        names = [*change.files, *change.removed]
        valid = data["format"] == 1 and all(n == CONFIG or is_model_file(n) for n in names)
    except (ValueError, TypeError, KeyError, RecursionError):
        valid = False
    if not valid:
        raise ModelError(
            f"{folder / MANIFEST} is damaged, so the state of the model is unknown",
            hint=f"remove {folder / CHANGE}, or {REPAIR}",
            code="model-change-damaged",
            path=folder / MANIFEST,
        )
    return change
