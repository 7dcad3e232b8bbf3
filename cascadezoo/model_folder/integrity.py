"""Integrity of a model folder: seals files by their sha256, checks them, and replaces them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import Any

from cascadezoo._version import __version__
from cascadezoo.errors import InputError, ModelError, RunFolderError
from cascadezoo.model_folder.layout import (
    CARD,
    CONFIG,
    REPAIR,
    FileRecord,
    ModelConfig,
    is_snapshot,
    link_fault,
    model_files,
    model_name,
    read_config,
)
from cascadezoo.model_folder.verified_files import VerifiedFiles
from cascadezoo.plugins.manager import get_registry
from cascadezoo.spec import CascadeSpec
from cascadezoo.util.files import sha256_of, write_atomically

__all__ = [
    "check_files",
    "file_faults",
    "refuse_bundled",
    "replace_files",
    "require_writable",
    "seal",
]


def seal(folder: Path, spec: CascadeSpec, version: str) -> ModelConfig:
    """Write config.json with the sha256 of every file in the folder.

    Raises:
        ModelError: a file in the folder is not part of a model.
    """
    files = {
        name: FileRecord(sha256=sha256_of(folder / name), size=(folder / name).stat().st_size)
        for name in model_files(folder)
    }
    config = ModelConfig(
        cascadezoo_version=version,
        spec=spec.to_dict(),
        spec_digest=spec.digest(),
        requires=spec.requires,
        files=files,
    )
    _write_config(folder, config)
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
    faults = file_faults(folder, config, names, trust_verified=trust_verified)
    if faults:
        raise ModelError(
            f"{folder}: " + "; ".join(faults.values()),
            hint=REPAIR,
            code="model-damaged",
            path=folder,
            faults={name: _reason(folder, config, name) for name in faults},
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
    requested = [n for n in config.files if n != CARD] if names is None else list(names)
    faults = {name: fault for name in requested if (fault := _fault_unread(folder, config, name))}
    if faults:
        return faults
    verified = VerifiedFiles(folder)
    digests = {name: config.files[name].sha256 for name in requested}
    rest = [n for n in requested if not (trust_verified and verified.matches(n, digests[n]))]
    if not rest:
        return {}
    with ThreadPoolExecutor(max_workers=4) as pool:
        actual = list(pool.map(lambda name: sha256_of(folder / name), rest))
    faults = {
        name: f"{name} was changed: its sha256 differs from the one in {CONFIG}"
        for name, digest in zip(rest, actual, strict=True)
        if digest != digests[name]
    }
    verified.add({name: digests[name] for name in rest if name not in faults})
    return faults


def _fault_unread(folder: Path, config: ModelConfig, name: str) -> str | None:
    """Return the fault of a file that shows without its content, or None."""
    record = config.files.get(name)
    if record is None:
        return f"{CONFIG} has no sha256 of {name}"
    if (fault := link_fault(folder, name)) is not None:
        return fault
    path = folder / name
    if not path.is_file():
        return f"{name} is missing"
    size = path.stat().st_size
    if size != record.size:
        return f"{name} has {size} bytes, but {CONFIG} says {record.size}"
    return None


def _reason(folder: Path, config: ModelConfig, name: str) -> str:
    """Return a fault of :func:`file_faults` in one word."""
    record, path = config.files.get(name), folder / name
    if record is None:
        return "unlisted"
    if link_fault(folder, name) is not None:
        return "link"
    if not path.is_file():
        return "missing"
    return "size" if path.stat().st_size != record.size else "content"


def require_writable(folder: Path, reference: str | Path) -> ModelConfig:
    """Check that the files of a model may be replaced, before a long measurement.

    Args:
        folder: the model folder.
        reference: the user's name of the model.

    Returns:
        The model's config.

    Raises:
        InputError: the model is read-only: it ships with cascadezoo or is in the Hub's cache.
        ModelError: a file is damaged; sealing again would hide the damage.
        RunFolderError: the folder is not writable.
    """
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
    """Replace files of a model atomically, and write config.json with their new sha256 last.

    After a power failure in between, the records in config.json do not match the files. The
    weights still load, with the old spec, and the same command repairs the folder.

    Args:
        folder: the model folder, checked by :func:`require_writable`.
        config: its config.
        files: content by name, for files of the layout other than config.json.
        spec: the model's new resolved spec; None keeps the spec.

    Returns:
        The new config.

    Raises:
        InputError: the model ships with cascadezoo.
        RunFolderError: the folder cannot be written.
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
    try:
        for name, content in files.items():
            write_atomically(folder / name, content)
            records[name] = FileRecord(sha256=sha256_of(folder / name), size=len(content))
        new = config.model_copy(update={**changes, "files": dict(sorted(records.items()))})
        _write_config(folder, new)
    except OSError as error:
        raise RunFolderError(
            f"cannot write to {folder}: {error.strerror or error}",
            hint="free some space, then run the same command again",
            code="run-folder-not-writable",
            path=folder,
        ) from error
    return new


def _write_config(folder: Path, config: ModelConfig) -> None:
    text = json.dumps(config.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
    write_atomically(folder / CONFIG, text.encode())


def _is_bundled(path: Path) -> bool:
    bundled = (row.entry.models_folder() for row in get_registry().zoos)
    own = resources.files("cascadezoo").joinpath("zoo", "models")
    folders = [folder for folder in (own, *bundled) if isinstance(folder, Path)]
    return any(folder.resolve() in path.resolve().parents for folder in folders)
