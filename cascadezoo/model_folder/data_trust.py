"""Decides whether the data that a model's config.json names may be opened.

A config.json may come from anyone, so a path in it must not make this machine open a file. The
data of a model are opened if they need no path (``DataConfig.paths``), if the user names every path
of them, if the model was built here, or if the user confirms them. Builds record their models in
the user's cache folder: nothing inside a model folder or a run folder, which may have been copied
from elsewhere, makes a model trusted.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cascadezoo.errors import CascadezooError, DataError
from cascadezoo.model_folder.layout import ModelConfig
from cascadezoo.plugins.manager import get_registry
from cascadezoo.util.files import cache_folder, write_atomically
from cascadezoo.util.text import clean_remote

__all__ = ["data_refusal", "names_no_path", "record_built", "was_built_here"]

_LOG = logging.getLogger("cascadezoo")

_SHOWN = 200
"""Number of characters of a refused path that an error shows."""

_Place = tuple[str, ...]
_CONFIG: _Place = ("data", "config")


def data_refusal(
    model: ModelConfig,
    data: Mapping[str, Any],
    settings: Iterable[str] = (),
    *,
    requested: bool = True,
) -> DataError | None:
    """The reason why the data of a model may not be opened without a confirmation, or None.

    Args:
        model: the model's config.json.
        data: the ``data`` of its spec, with the user's settings applied.
        settings: the user's ``path=value`` settings.
        requested: whether the user requested a measurement on real images. Otherwise only data
            without any file or download are opened.
    """
    source, config = data.get("source"), data.get("config", {})
    if not isinstance(source, str) or not isinstance(config, Mapping):
        return None  # its validation reports it
    if source not in get_registry().datasets.rows:
        return None  # its resolution reports it
    fields = _path_fields(source)
    named = [tuple(setting.partition("=")[0].split(".")) for setting in settings]
    texts = [
        (place, text)
        for place, text in _texts(config, _CONFIG)
        if (fields is None or place[2] in fields)
        and not any(place[: len(prefix)] == prefix for prefix in named)
    ]
    if (not texts and (requested or fields == ())) or was_built_here(model):
        return None
    source = clean_remote(source, _SHOWN)
    if not texts:
        return DataError(
            f"the dataset {source} may download files",
            hint="request it: --features N",
            code="data-not-requested",
            name=source,
        )
    place, text = texts[0]
    field = clean_remote(".".join(place), _SHOWN)
    shown = clean_remote(text, _SHOWN)
    return DataError(
        f"the model names files on this machine, which are not opened without confirmation: "
        f"{field} of the dataset {source} is {shown!r}",
        hint=f"evaluate and tune take the location of your images: --set {field}=PATH; "
        "--trust-data opens what the model names",
        code="data-untrusted",
        name=source,
        field=field,
        path=shown,
    )


def names_no_path(source: str, config: Mapping[str, Any]) -> bool:
    """Whether a dataset is known to need no path, so that its ``info()`` opens no file."""
    fields = _path_fields(source)
    return fields is not None and not any(config.get(name) is not None for name in fields)


def record_built(model: ModelConfig) -> None:
    """Record that a build of this user wrote a model, so that its data can be opened later."""
    path = _record(model)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, b"")
    except (OSError, RuntimeError) as error:
        _LOG.warning("cannot record the model in %s: %s", path.parent, error)


def was_built_here(model: ModelConfig) -> bool:
    """Whether a build of this user wrote a model with these weights and this dataset."""
    try:
        return _record(model).is_file()
    except (OSError, RuntimeError):  # no home folder
        return False


def _record(model: ModelConfig) -> Path:
    """The record of a model: its name holds the weights, the dataset and the dataset's config."""
    data = model.spec.get("data")
    named = {key: data.get(key) for key in ("source", "config")} if isinstance(data, dict) else None
    weights = {n: row.sha256 for n, row in model.files.items() if n.startswith("stages/")}
    text = json.dumps([named, weights], sort_keys=True)
    return cache_folder() / "built" / hashlib.sha256(text.encode()).hexdigest()


def _path_fields(source: str) -> tuple[str, ...] | None:
    """``DataConfig.paths`` of a dataset; None if it is not installed or does not declare them."""
    row = get_registry().datasets.rows.get(source)
    try:
        paths = None if row is None else getattr(row.entry.load_config(), "paths", None)
    except CascadezooError:
        return None
    return None if paths is None else tuple(paths)


def _texts(node: Any, place: _Place) -> Iterator[tuple[_Place, str]]:
    """Every text in a config with its place, including the keys of inner objects."""
    if isinstance(node, str):
        yield place, node
    elif isinstance(node, Mapping):
        for key, value in node.items():
            if place != _CONFIG:
                yield (*place, str(key)), str(key)
            yield from _texts(value, (*place, str(key)))
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from _texts(value, (*place, str(index)))
