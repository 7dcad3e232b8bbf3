"""Integrity of a model folder: files sealed by their sha256, checked, and replaced."""

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
from cascadezoo.model_folder.verified_files import Verified
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
    """Write config.json over the files that lie in the folder.

    Raises:
        ModelError: something in the folder is not part of a model.
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
        names: the files to check; None checks all but the card, which people edit.
        trust_verified: take files that were hashed before and not touched since as they are.

    Raises:
        ModelError: a file is missing, is a link, or is not what its record says.
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
    """What is wrong with files, by their names; see :func:`check_files`.

    Nothing is hashed where a file is missing, is a link, or has another size.
    """
    wanted = [n for n in config.files if n != CARD] if names is None else list(names)
    faults = {name: fault for name in wanted if (fault := _outside_fault(folder, config, name))}
    if faults:
        return faults
    known = Verified(folder)
    digests = {name: config.files[name].sha256 for name in wanted}
    rest = [n for n in wanted if not (trust_verified and known.holds(n, digests[n]))]
    if not rest:
        return {}
    with ThreadPoolExecutor(max_workers=4) as pool:
        found = list(pool.map(lambda name: sha256_of(folder / name), rest))
    faults = {
        name: f"{name} was changed: its sha256 is not the one in {CONFIG}"
        for name, digest in zip(rest, found, strict=True)
        if digest != digests[name]
    }
    known.remember({name: digests[name] for name in rest if name not in faults})
    return faults


def _outside_fault(folder: Path, config: ModelConfig, name: str) -> str | None:
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
        return f"{name} has {size} bytes, not the {record.size} of {CONFIG}"
    return None


def _reason(folder: Path, config: ModelConfig, name: str) -> str:
    """A fault of :func:`file_faults` in one word."""
    record, path = config.files.get(name), folder / name
    if record is None:
        return "unlisted"
    if link_fault(folder, name) is not None:
        return "link"
    if not path.is_file():
        return "missing"
    return "size" if path.stat().st_size != record.size else "content"


def require_writable(folder: Path, reference: str | Path) -> ModelConfig:
    """Whether files of a model may be changed; asked before anything is measured.

    Args:
        folder: the model folder.
        reference: how the user named the model.

    Returns:
        Its config.

    Raises:
        InputError: it ships with cascadezoo or lies in the Hub's cache, where nothing is changed.
        ModelError: it is not whole: what was changed must not be sealed.
        RunFolderError: the folder cannot be written.
    """
    config = read_config(folder)
    name = model_name(config)
    where = None
    if is_snapshot(folder):
        where = "lies in the Hub's cache, whose files are what the Hub has"
    elif _is_bundled(folder):
        where, reference = "ships with cascadezoo", name
    if where is not None:
        raise InputError(
            f"{name} {where}; its files are not changed",
            hint=f"make a copy of your own: cascadezoo pull {reference} --to models/{name}",
            code="input-model-read-only",
            name=name,
        )
    check_files(folder, config)
    unknown = [other for other in model_files(folder) if other not in (*config.files, CARD)]
    if unknown:
        raise ModelError(
            f"{folder}: {CONFIG} has no sha256 of {unknown[0]}",
            hint="remove it, or build again",
            code="model-file-unlisted",
            path=folder,
            name=unknown[0],
        )
    if not os.access(folder, os.W_OK):
        raise RunFolderError(
            f"{folder} cannot be written",
            hint=f"make a copy: cascadezoo pull {folder} --to models/{name}",
            code="run-folder-not-writable",
            path=folder,
        )
    return config


def refuse_bundled(path: Path) -> None:
    """Refuse a place inside a model that ships with cascadezoo, where no command writes.

    Args:
        path: the file or folder to write; it need not exist.

    Raises:
        InputError: the path lies among the bundled models.
    """
    if _is_bundled(path):
        raise InputError(
            f"{path} is inside the models that ship with cascadezoo, which are never changed",
            hint="choose another place",
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
    """Replace files of a model, each whole, and write config.json with their new sha256 last.

    After a power failure in between, the records in config.json do not match the files. The
    weights still load, with the old spec, and the same command repairs the folder.

    Args:
        folder: the model folder, checked by :func:`require_writable`.
        config: its config.
        files: content by name, of files of the layout other than config.json.
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
            f"{folder} cannot be written: {error.strerror or error}",
            hint="make room there, then run the same command again",
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
    places = [place for place in (own, *bundled) if isinstance(place, Path)]
    return any(place.resolve() in path.resolve().parents for place in places)
