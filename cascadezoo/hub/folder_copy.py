"""Copies of models between folders: complete and checked, or none."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cascadezoo.errors import ModelError, ModelReferenceError, RunFolderError
from cascadezoo.hub.locate import locate
from cascadezoo.hub.refs import is_hub_id
from cascadezoo.model_folder.change import new_version, recover
from cascadezoo.model_folder.files import file_exists, file_sha256, file_size, open_file
from cascadezoo.model_folder.integrity import check_files, refuse_bundled
from cascadezoo.model_folder.layout import (
    CARD,
    CONFIG,
    ModelConfig,
    is_snapshot,
    model_files,
    model_name,
    read_config,
)
from cascadezoo.util.files import disk_full, is_alive, sync_folder, temporary_of
from cascadezoo.util.text import clean

__all__ = [
    "Copied",
    "check_copy_target",
    "check_destination",
    "checked_files",
    "copy_model",
    "possible_folder",
    "publish_local",
]

# Most systems allow 4,096 and 255 bytes; the files of a model and temporary names need some.
_LONGEST_PATH = 3_800
_LONGEST_NAME = 200
_MOST_PARTS = 200


@dataclass(frozen=True, slots=True)
class Copied:
    """The result of copying a model.

    Args:
        name: the model's name.
        source: the model folder that was read.
        dest: the folder of the copy.
        files: size in bytes of every file, by its path in the folder.
        replaced: the copy replaced an older version.
        changed: False if ``dest`` held the same model already and nothing was written.
        dry_run: the result describes a copy that was not made.
    """

    name: str
    source: Path
    dest: Path
    files: dict[str, int]
    replaced: bool
    changed: bool
    dry_run: bool = False

    @property
    def size(self) -> int:
        """Size in bytes of all files."""
        return sum(self.files.values())

    def __str__(self) -> str:
        return str(self.dest)

    def to_dict(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {
            "name": self.name,
            "source": str(self.source),
            "dest": str(self.dest),
            "bytes": self.size,
            "files": self.files,
            "replaced": self.replaced,
            "changed": self.changed,
            "dry_run": self.dry_run,
        }


def publish_local(model: str | Path, dest: str | Path, *, dry_run: bool = False) -> Copied:
    """Copy a model to a folder.

    Every file is compared with config.json before and after it is copied. The copy is assembled
    apart and takes its place in one step. It replaces an older version of the same model, and
    nothing else.

    Args:
        model: a model folder, or the run folder of a finished build.
        dest: the folder to publish to.
        dry_run: check everything and write nothing.

    Raises:
        ModelReferenceError: ``model`` does not exist, or ``dest`` is on the Hub.
        ModelError: the model is incomplete.
        RunFolderError: ``dest`` holds something else, or cannot be written.
    """
    _refuse_hub(str(dest))
    return copy_model(locate(model), possible_folder(dest), dry_run=dry_run)


def check_destination(dest: str | Path, name: str) -> None:
    """Check before training that a model of that name can be published to a folder.

    Raises:
        ModelReferenceError: ``dest`` is on the Hub.
        RunFolderError: ``dest`` holds something else, or cannot be written.
    """
    _refuse_hub(str(dest))
    path = possible_folder(dest)
    _older_version(path, name)
    _require_writable(path)


def possible_folder(dest: str | Path) -> Path:
    """The path of a folder to write, with ``~`` and ``~user`` expanded.

    Raises:
        RunFolderError: no folder can have this path.
    """
    try:
        path = Path(dest).expanduser()
        full = path.absolute()
        if len(os.fsencode(full)) > _LONGEST_PATH or len(full.parts) > _MOST_PARTS:
            raise ValueError("it is too long")
        if "\0" in str(full):
            raise ValueError("it contains a NUL character")
        if any(len(os.fsencode(part)) > _LONGEST_NAME for part in full.parts):
            raise ValueError("it is too long")
    except (ValueError, RuntimeError) as error:
        reason = "it is not valid text" if isinstance(error, UnicodeError) else str(error)
        shown = clean(dest)[:200]
        raise RunFolderError(
            f"no folder can have the path {shown!r}: {reason}",
            hint="choose another folder",
            code="run-folder-path-invalid",
            path=shown,
        ) from None
    return path


def check_copy_target(dest: Path) -> None:
    """Check before a download that a model can be copied to a folder.

    Raises:
        RunFolderError: ``dest`` holds something other than a model, or cannot be written.
    """
    _older_version(dest, None)
    _require_writable(dest)


def _require_writable(path: Path) -> None:
    refuse_bundled(path)
    existing = next(p for p in (path, *path.absolute().parents) if p.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise RunFolderError(
            f"{path} cannot be written",
            hint="choose another folder",
            code="run-folder-not-writable",
            path=path,
        )


def _refuse_hub(text: str) -> None:
    if is_hub_id(text) and not Path(text).is_dir():
        raise ModelReferenceError(
            f"{text!r} has the form of a repo on the Hub, not of a folder",
            hint=f"for a folder, write ./{text.removeprefix('hf://')}",
            code="reference-is-repo",
            name=text,
        )


def copy_model(source: Path, dest: Path, *, dry_run: bool = False) -> Copied:
    """Copy a model folder, complete and checked.

    Args:
        source: a model folder. From a snapshot in the Hub's cache, only the files that config.json
            lists are copied, since other programs add other files of the repo.
        dest: a new or empty folder, or one with an older version of the same model.
        dry_run: check everything and write nothing.

    Raises:
        ModelError: the model is incomplete.
        RunFolderError: ``dest`` holds something else, or cannot be written.
    """
    config = read_config(source)
    names = checked_files(source, config)
    _refuse_overlap(source, dest)
    refuse_bundled(dest)
    older = _older_version(dest, model_name(config))
    same = older is not None and _same(source, dest, [CONFIG, *names])
    result = Copied(
        name=model_name(config),
        source=source,
        dest=dest,
        files={name: file_size(source, name) for name in (CONFIG, *names)},
        replaced=older is not None and not same,
        changed=not same,
        dry_run=dry_run,
    )
    if not dry_run and older is not None:
        recover(dest)
    if same or dry_run:
        return result
    try:
        with _new_folder(dest, model_name(config)) as new:
            for name in (CONFIG, *names):
                _copy_file(source, name, new / name)
            if read_config(new) != config:
                raise ModelError(
                    f"{source} changed while it was copied",
                    hint="run the same command again",
                    code="model-changed-while-copied",
                    path=source,
                )
            check_files(new, config)
    except OSError as error:
        raise disk_full(error, dest) or RunFolderError(
            f"{dest} cannot be written: {error.strerror}",
            hint="choose another folder",
            code="run-folder-not-writable",
            path=dest,
        ) from error
    return result


def checked_files(source: Path, config: ModelConfig) -> list[str]:
    """Check the files of a model, and list them without config.json.

    Raises:
        ModelError: a file is missing, changed, unlisted, or not part of a model.
    """
    if is_snapshot(source):
        check_files(source, config, trust_verified=True)
        return [name for name in config.files if file_exists(source, name)]
    check_files(source, config)
    known = list(model_files(source))
    if CARD in config.files and CARD not in known:
        raise ModelError(
            f"{source}: {CARD} is missing",
            hint="copy the model again",
            code="model-card-missing",
            path=source,
        )
    # The card may be edited or left out; every other file must have a record.
    for name in known:
        if name != CARD and name not in config.files:
            raise ModelError(
                f"{source}: {CONFIG} has no sha256 of {name}",
                hint="remove the file, or build the model again",
                code="model-file-unlisted",
                path=source,
                name=name,
            )
    return known


def _refuse_overlap(source: Path, dest: Path) -> None:
    one, other = source.resolve(), dest.resolve()
    if one == other or one in other.parents or other in one.parents:
        raise RunFolderError(
            f"one of {dest} and the model {source} contains the other",
            hint="choose another folder",
            code="run-folder-nested",
            path=dest,
        )


def _older_version(dest: Path, name: str | None) -> ModelConfig | None:
    """The config of the model in ``dest``; None if the folder is empty or does not exist.

    Args:
        dest: the folder.
        name: the required name of the model; None accepts any.

    Raises:
        RunFolderError: ``dest`` holds anything else.
    """
    hint = "choose another folder, or empty this one"
    if dest.is_symlink() or (dest.exists() and not dest.is_dir()):
        raise RunFolderError(
            f"{dest} is not a folder",
            hint="choose another path",
            code="run-folder-not-a-folder",
            path=dest,
        )
    if not dest.exists() or not any(dest.iterdir()):
        return None
    if not file_exists(dest, CONFIG):
        raise RunFolderError(
            f"{dest} is not empty and contains no model",
            hint=hint,
            code="run-folder-not-a-model",
            path=dest,
        )
    try:
        older = read_config(dest)
        list(model_files(dest))
    except ModelError as error:
        raise RunFolderError(
            f"{dest} cannot be replaced: {error.what}",
            hint=hint,
            code="run-folder-not-replaced",
            path=dest,
        ) from error
    if name is not None and model_name(older) != name:
        raise RunFolderError(
            f"{dest} contains another model, {model_name(older)!r}; this one is {name!r}",
            hint=hint,
            code="run-folder-not-replaced",
            path=dest,
        )
    return older


def _same(source: Path, dest: Path, names: list[str]) -> bool:
    if sorted(model_files(dest)) != sorted(n for n in names if n != CONFIG):
        return False
    return all(
        file_size(source, n) == file_size(dest, n)
        and file_sha256(source, n) == file_sha256(dest, n)
        for n in names
    )


@contextmanager
def _new_folder(dest: Path, name: str) -> Iterator[Path]:
    """An empty folder whose files become the model in ``dest`` in one step.

    Args:
        dest: the destination: an older version of the model, an empty folder, or none.
        name: the name of the model.
    """
    _remove_stale(dest)
    if _older_version(dest, name) is not None:
        with new_version(dest, whole=True) as folder:
            yield folder
        return
    dest.parent.mkdir(parents=True, exist_ok=True)
    suffix = f".{os.getpid()}.tmp"
    folder = Path(tempfile.mkdtemp(prefix=f".{dest.name}.", suffix=suffix, dir=dest.parent))
    try:
        folder.chmod(0o755)
        yield folder
        for path in (*(p for p in folder.rglob("*") if p.is_dir()), folder):
            sync_folder(path)
        folder.rename(dest)  # atomic, also over an empty folder
        sync_folder(dest.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_stale(dest: Path) -> None:
    """Remove what ended processes left of copies to ``dest``."""
    pattern = re.compile(rf"{re.escape(dest.name)}\.[a-z0-9_]{{8}}")
    with suppress(OSError):
        for other in list(dest.parent.iterdir()):
            owner = temporary_of(other.name)
            if owner is not None and pattern.fullmatch(owner[0]) and not is_alive(owner[1]):
                shutil.rmtree(other, ignore_errors=True)


def _copy_file(source: Path, name: str, dest: Path) -> None:
    dest.parent.mkdir(parents=True, exist_ok=True)
    with open_file(source, name) as read, dest.open("wb") as written:
        shutil.copyfileobj(read, written, 1 << 20)
        written.flush()
        os.fsync(written.fileno())
