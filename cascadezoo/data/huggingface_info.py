"""Reads what a saved dataset states about itself, without the library ``datasets``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cascadezoo.data.files import data_path, open_data
from cascadezoo.errors import CascadezooError, DataError
from cascadezoo.util.limits import LARGEST_CLASS_NAMES, MOST_CLASSES

if TYPE_CHECKING:
    from cascadezoo.data.huggingface import HuggingFaceConfig

__all__ = ["StoredInfo", "local_folder", "stored_info"]

_INFO = "dataset_info.json"


@dataclass(frozen=True, slots=True)
class StoredInfo:
    """What a saved dataset states.

    Args:
        local: whether the config names a folder.
        count: number of images of the training split.
        num_classes: number of classes of the label column.
        names: their names.
    """

    local: bool
    count: int | None = None
    num_classes: int | None = None
    names: tuple[str, ...] | None = None


def local_folder(config: HuggingFaceConfig) -> Path | None:
    """The folder that a config names; None for a dataset of the Hub.

    Raises:
        DataError: the path is not possible, or is neither a folder nor a repository.
    """
    path = data_path(config.path)
    if path.is_dir():
        return path
    parts = config.path.split("/")
    if len(parts) > 2 or config.path.startswith((".", "~", "/")):
        raise DataError(
            f"folder {path} not found",
            hint="a relative path starts from the current directory; a dataset of the Hub is "
            "org/name",
            code="data-no-folder",
            path=path,
        )
    return None


def stored_info(config: HuggingFaceConfig) -> StoredInfo:
    """What the folder of a config states; nothing for a dataset of the Hub.

    Raises:
        DataError: the path is not possible, or its file is damaged.
    """
    folder = local_folder(config)
    if folder is None:
        return StoredInfo(local=False)
    for path in (folder / config.train / _INFO, folder / _INFO):
        if path.is_file():
            return _stored(path, config)
    return StoredInfo(local=True)


def _stored(path: Path, config: HuggingFaceConfig) -> StoredInfo:
    from cascadezoo.spec.files import parse_json

    try:
        with open_data(path) as file:
            data: Any = parse_json(
                file.read(LARGEST_CLASS_NAMES + 1), str(path), max_bytes=LARGEST_CLASS_NAMES
            )
    except (OSError, CascadezooError) as error:
        raise DataError(
            f"{path} cannot be read: {getattr(error, 'what', error)}",
            hint="save or download the dataset again",
            code="data-info-damaged",
            path=path,
        ) from error
    count = _at(data, "splits", config.train, "num_examples")
    names = _at(data, "features", config.label or "", "names")
    if not isinstance(names, list) or not 0 < len(names) <= MOST_CLASSES:
        names = None
    return StoredInfo(
        local=True,
        count=count if isinstance(count, int) and not isinstance(count, bool) else None,
        num_classes=None if names is None else len(names),
        names=None if names is None else tuple(str(name) for name in names),
    )


def _at(data: Any, *keys: str) -> Any:
    for key in keys:
        data = data.get(key) if isinstance(data, Mapping) else None
    return data
