"""Integrity of a model folder: seals files by their sha256, checks them, and replaces them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import Any

from cascadezoo._version import __version__
from cascadezoo.errors import InputError, ModelError, RunFolderError
from cascadezoo.model_folder.change import new_version, recover
from cascadezoo.model_folder.files import file_sha256, file_size, open_file, stat_file
from cascadezoo.model_folder.layout import (
    CARD,
    CONFIG,
    REPAIR,
    FileRecord,
    ModelConfig,
    is_snapshot,
    model_files,
    model_name,
    read_config,
)
from cascadezoo.model_folder.verified_files import VerifiedFiles
from cascadezoo.plugins.manager import get_registry
from cascadezoo.spec import CascadeSpec
from cascadezoo.util.files import FileRefusedError, disk_full, write_atomically
from cascadezoo.util.limits import LARGEST_HEADER

__all__ = [
    "check_files",
    "file_faults",
    "refuse_bundled",
    "replace_files",
    "require_writable",
    "seal",
]

Fault = tuple[str, str]
"""A fault in one word and in a sentence."""

_SOON_HASHED = 64 << 20
"""Largest file in bytes that is hashed whatever its header says."""


def seal(folder: Path, spec: CascadeSpec, version: str, *, new: Path | None = None) -> ModelConfig:
    """Write config.json with the sha256 of every file in the folder.

    Args:
        folder: the model folder.
        spec: the model's spec.
        version: the version of cascadezoo.
        new: the folder of :func:`~cascadezoo.model_folder.change.new_version`, whose files will
            replace those of ``folder``; config.json is written there. None is the folder itself.

    Raises:
        ModelError: a file in the folder is not part of a model.
    """
    places = dict.fromkeys(model_files(folder), folder)
    if new is not None:
        places |= dict.fromkeys(model_files(new), new)
    files = {
        name: FileRecord(sha256=file_sha256(place, name), size=file_size(place, name))
        for name, place in sorted(places.items())
    }
    config = ModelConfig(
        cascadezoo_version=version,
        spec=spec.to_dict(),
        spec_digest=spec.digest(),
        requires=spec.requires,
        files=files,
    )
    write_atomically((new or folder) / CONFIG, _config_text(config))
    return config


def check_files(
    folder: Path,
    config: ModelConfig,
    names: Iterable[str] | None = None,
    *,
    trust_verified: bool = False,
) -> None:
    """Compare files with their records in config.json.

    Args:
        folder: the model folder.
        config: its config.
        names: the files to check; None checks all except the card, which people edit.
        trust_verified: do not hash files again that have not changed since the last check.

    Raises:
        ModelError: a file is missing, is a link, or differs from its record.
    """
    faults = _faults(folder, config, names, trust_verified=trust_verified)
    if faults:
        if read_config(folder) != config:
            raise _changed_meanwhile(folder, "run the same command again")
        raise ModelError(
            f"{folder}: " + "; ".join(text for _, text in faults.values()),
            hint=REPAIR,
            code="model-damaged",
            path=folder,
            faults={name: reason for name, (reason, _) in faults.items()},
        )


def file_faults(
    folder: Path,
    config: ModelConfig,
    names: Iterable[str] | None = None,
    *,
    trust_verified: bool = False,
) -> dict[str, str]:
    """Return the faults of files by name; see :func:`check_files`.

    If any file is missing, is a link, or has another size, no file is hashed.
    """
    return {
        name: text
        for name, (_, text) in _faults(folder, config, names, trust_verified=trust_verified).items()
    }


def _faults(
    folder: Path, config: ModelConfig, names: Iterable[str] | None, *, trust_verified: bool
) -> dict[str, Fault]:
    requested = [n for n in config.files if n != CARD] if names is None else list(names)
    faults = {name: fault for name in requested if (fault := _fault_unread(folder, config, name))}
    if faults:
        return faults
    verified = VerifiedFiles(folder)
    digests = {name: config.files[name].sha256 for name in requested}
    rest = [n for n in requested if not (trust_verified and verified.matches(n, digests[n]))]
    if not rest:
        return {}
    faults = {name: fault for name in rest if (fault := _fault_of_length(folder, name))}
    if faults:
        return faults
    with ThreadPoolExecutor(max_workers=4) as pool:
        actual = list(pool.map(lambda name: file_sha256(folder, name), rest))
    text = f"was changed: its sha256 differs from the one in {CONFIG}"
    faults = {
        name: ("content", f"{name} {text}")
        for name, digest in zip(rest, actual, strict=True)
        if digest != digests[name]
    }
    verified.add({name: digests[name] for name in rest if name not in faults})
    return faults


def _fault_unread(folder: Path, config: ModelConfig, name: str) -> Fault | None:
    """Return the fault of a file that shows without its content, or None."""
    record = config.files.get(name)
    if record is None:
        return "unlisted", f"{CONFIG} has no sha256 of {name}"
    try:
        size = stat_file(folder, name).st_size
    except FileRefusedError as error:
        return error.reason, f"{name} {error.text}"
    except (FileNotFoundError, NotADirectoryError):
        return "missing", f"{name} is missing"
    except OSError as error:
        return "unreadable", f"{name} cannot be read: {error.strerror}"
    if size != record.size:
        return "size", f"{name} has {size} bytes, but {CONFIG} says {record.size}"
    return None


def _fault_of_length(folder: Path, name: str) -> Fault | None:
    """Return the fault of weights that are longer than their header says.

    A sparse file of a terabyte costs its author nothing, and its reader half an hour.
    """
    if not name.endswith(".safetensors"):
        return None
    try:
        with open_file(folder, name) as file:
            size = os.fstat(file.fileno()).st_size
            if size <= _SOON_HASHED:
                return None
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length if length <= LARGEST_HEADER else 0))
        rows = [row["data_offsets"][1] for key, row in header.items() if key != "__metadata__"]
        described = 8 + length + int(max(rows, default=0))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        described = 0
    except OSError as error:
        return "unreadable", f"{name} cannot be read: {error.strerror}"
    if size <= described:
        return None
    return "length", f"{name} has {size} bytes, but its header describes {described}"


def require_writable(folder: Path, reference: str | Path) -> ModelConfig:
    """Check that the files of a model may be replaced, before a long measurement.

    Finishes a change of the model that a kill interrupted.

    Args:
        folder: the model folder.
        reference: the user's name of the model.

    Returns:
        The model's config.

    Raises:
        InputError: the model is read-only: it ships with cascadezoo or is in the Hub's cache.
        ModelError: a file is damaged; sealing again would hide the damage.
        RunFolderError: the folder is not writable.
        RunLockedError: another command is changing the folder.
    """
    if not is_snapshot(folder) and not _is_bundled(folder):
        recover(folder)
    config = read_config(folder)
    name = model_name(config)
    reason = None
    if is_snapshot(folder):
        reason = "is in the Hub's cache"
    elif _is_bundled(folder):
        reason, reference = "ships with cascadezoo", name
    if reason is not None:
        raise InputError(
            f"{name} is read-only: it {reason}",
            hint=f"copy it: cascadezoo pull {reference} --to models/{name}",
            code="input-model-read-only",
            name=name,
        )
    check_files(folder, config)
    unknown = [other for other in model_files(folder) if other not in (*config.files, CARD)]
    if unknown:
        raise ModelError(
            f"{folder}: {CONFIG} has no sha256 of {unknown[0]}",
            hint="remove the file, or build again",
            code="model-file-unlisted",
            path=folder,
            name=unknown[0],
        )
    if not os.access(folder, os.W_OK):
        raise RunFolderError(
            f"{folder} is not writable",
            hint=f"copy it: cascadezoo pull {folder} --to models/{name}",
            code="run-folder-not-writable",
            path=folder,
        )
    return config


def refuse_bundled(path: Path) -> None:
    """Refuse to write inside a model that ships with cascadezoo.

    Args:
        path: the file or folder to write; it may not exist yet.

    Raises:
        InputError: the path is inside a bundled model.
    """
    if _is_bundled(path):
        raise InputError(
            f"{path} is inside a model that ships with cascadezoo, which is read-only",
            hint="choose another path",
            code="input-path-bundled",
            path=path,
        )


def replace_files(
    folder: Path,
    config: ModelConfig,
    files: Mapping[str, bytes],
    *,
    spec: CascadeSpec | None = None,
) -> ModelConfig:
    """Replace files of a model, and their sha256 in config.json, in one step.

    A kill or a power failure at any moment leaves the old or the new version; see
    :mod:`cascadezoo.model_folder.change`.

    Args:
        folder: the model folder, checked by :func:`require_writable`.
        config: its config.
        files: content by name, for files of the layout other than config.json.
        spec: the model's new resolved spec; None keeps the spec.

    Returns:
        The new config.

    Raises:
        InputError: the model ships with cascadezoo.
        ModelError: another command changed the model since ``config`` was read.
        RunFolderError: the folder cannot be written.
        RunLockedError: another command is changing the folder.
    """
    refuse_bundled(folder)
    records = dict(config.files)
    changes: dict[str, Any] = {}
    if spec is not None:
        changes = {
            "cascadezoo_version": __version__,
            "spec": spec.to_dict(),
            "spec_digest": spec.digest(),
            "requires": spec.requires,
        }
    for name, content in files.items():
        records[name] = FileRecord(sha256=hashlib.sha256(content).hexdigest(), size=len(content))
    new = config.model_copy(update={**changes, "files": dict(sorted(records.items()))})
    with new_version(folder) as place:
        if read_config(folder) != config:
            raise _changed_meanwhile(folder, "nothing was written; run the same command again")
        try:
            for name, content in {**files, CONFIG: _config_text(new)}.items():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                (place / name).write_bytes(content)
        except OSError as error:
            raise disk_full(error, folder) or RunFolderError(
                f"cannot write to {folder}: {error.strerror or error}",
                hint="make it writable, then run the same command again",
                code="run-folder-not-writable",
                path=folder,
            ) from error
    return new


def _changed_meanwhile(folder: Path, hint: str) -> ModelError:
    return ModelError(
        f"another command changed {folder} in the meantime",
        hint=hint,
        code="model-changed-meanwhile",
        path=folder,
    )


def _config_text(config: ModelConfig) -> bytes:
    text = json.dumps(config.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
    return text.encode()


def _is_bundled(path: Path) -> bool:
    bundled = (row.entry.models_folder() for row in get_registry().zoos)
    own = resources.files("cascadezoo").joinpath("zoo", "models")
    folders = [folder for folder in (own, *bundled) if isinstance(folder, Path)]
    return any(folder.resolve() in path.resolve().parents for folder in folders)
