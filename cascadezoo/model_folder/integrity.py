"""Changing files of a finished model: which may be changed, and its records afterwards."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from cascadezoo.errors import InputError, ModelError, RunFolderError
from cascadezoo.model_folder.layout import (
    CARD,
    CONFIG,
    FileRecord,
    ModelConfig,
    check_files,
    is_snapshot,
    model_files,
    model_name,
    read_config,
    sha256_of,
    write_atomically,
)

__all__ = ["replace_files", "require_writable"]


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
        where = "ships with cascadezoo"
    if where is not None:
        raise InputError(
            f"{name} {where}; its files are not changed",
            hint=f"make a copy of your own: cascadezoo pull {reference} --to models/{name}",
        )
    check_files(folder, config)
    unknown = [other for other in model_files(folder) if other not in (*config.files, CARD)]
    if unknown:
        raise ModelError(
            f"{folder}: {CONFIG} has no sha256 of {unknown[0]}", hint="remove it, or build again"
        )
    if not os.access(folder, os.W_OK):
        raise RunFolderError(
            f"{folder} cannot be written",
            hint=f"make a copy: cascadezoo pull {folder} --to models/{name}",
        )
    return config


def replace_files(folder: Path, config: ModelConfig, files: Mapping[str, bytes]) -> ModelConfig:
    """Replace files of a model, each whole, and put their new sha256 into config.json last.

    A model that was being written when the power failed tells by its records that it was; writing
    again mends it.

    Args:
        folder: the model folder, looked at by :func:`require_writable`.
        config: its config.
        files: content by name, of files of the layout other than config.json.

    Returns:
        The new config.

    Raises:
        RunFolderError: the folder cannot be written.
    """
    records = dict(config.files)
    try:
        for name, content in files.items():
            write_atomically(folder / name, content)
            records[name] = FileRecord(sha256=sha256_of(folder / name), size=len(content))
        new = config.model_copy(update={"files": dict(sorted(records.items()))})
        text = json.dumps(new.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
        write_atomically(folder / CONFIG, text.encode())
    except OSError as error:
        raise RunFolderError(
            f"{folder} cannot be written: {error.strerror or error}",
            hint="make room there, then run the same command again",
        ) from error
    return new


def _is_bundled(folder: Path) -> bool:
    zoo = resources.files("cascadezoo").joinpath("zoo", "models")
    return isinstance(zoo, Path) and zoo.resolve() in folder.resolve().parents
