"""The model folder: its files and its config.json.

```
README.md       metric card
config.json     the resolved spec, cascadezoo's version, requires, sha256 of every other file
metrics.json    every figure and how it was measured
samples.png
stages/<name>/model.safetensors
```
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from cascadezoo.errors import ModelError, SpecError
from cascadezoo.spec import parse_json
from cascadezoo.spec.configs import Model
from cascadezoo.spec.faults import problems_of
from cascadezoo.spec.models import FROM_DATA
from cascadezoo.util.limits import LARGEST_JSON, SHA256

__all__ = [
    "CARD",
    "CONFIG",
    "METRICS",
    "REPAIR",
    "SAMPLES",
    "FileRecord",
    "ModelConfig",
    "is_cache_link",
    "is_model_file",
    "is_snapshot",
    "link_fault",
    "model_files",
    "model_name",
    "parse_config",
    "read_config",
    "weights_path",
]

CARD = "README.md"
CONFIG = "config.json"
METRICS = "metrics.json"
SAMPLES = "samples.png"

_WEIGHTS = re.compile(r"stages/[a-z][a-z0-9_-]{0,39}/model\.safetensors")
LONGEST_KEY = 200
"""Largest number of characters of a key in config.json; names of stages are far shorter."""

REPAIR = "pull or copy the model again"
"""The hint of errors about damaged files."""


class FileRecord(Model):
    """sha256 and size in bytes of a file."""

    sha256: Annotated[str, Field(pattern=SHA256)]
    size: Annotated[int, Field(ge=0)]


class ModelConfig(Model):
    """The content of config.json."""

    format: Literal[1] = 1
    library_name: Literal["cascadezoo"] = "cascadezoo"
    cascadezoo_version: Annotated[str, Field(max_length=80)]
    spec: dict[str, Any]
    """The resolved spec."""
    spec_digest: Annotated[str, Field(pattern=SHA256)]
    requires: Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=64)]
    files: Annotated[dict[str, FileRecord], Field(max_length=64)]
    """sha256 and size in bytes of every other file of the folder."""


def weights_path(stage: str) -> str:
    """The path of a stage's weights in a model folder."""
    return f"stages/{stage}/model.safetensors"


def is_model_file(name: str) -> bool:
    """Whether a relative path is part of the layout of a model folder."""
    return name in (CARD, METRICS, SAMPLES) or _WEIGHTS.fullmatch(name) is not None


def model_name(config: ModelConfig) -> str:
    """The model's name in its spec."""
    return str(config.spec.get("name"))


def model_files(folder: Path) -> Iterator[str]:
    """Yield the files of a model folder except config.json, as sorted relative paths.

    Raises:
        ModelError: a file in the folder is a link or not part of a model.
    """
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
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
        yield name


def read_config(folder: Path) -> ModelConfig:
    """Read and validate config.json.

    Raises:
        ModelError: it is missing, is not JSON, or is not the config of a cascadezoo model.
    """
    path = folder / CONFIG
    fault = link_fault(folder, CONFIG)
    if fault is not None or (path.exists() and not path.is_file()):
        raise ModelError(
            f"{folder}: {fault or f'{CONFIG} is not a file'}",
            hint=REPAIR,
            code="model-config-damaged",
            path=folder,
        )
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST_JSON + 1)
    except FileNotFoundError:
        raise ModelError(
            f"{folder} is not a model folder: it has no {CONFIG}",
            hint="give the run folder of a finished build, or a pulled model",
            code="model-no-config",
            path=folder,
        ) from None
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read: {error.strerror}", code="model-config-unreadable", path=path
        ) from error
    return parse_config(text, str(path))


def parse_config(text: bytes, source: str) -> ModelConfig:
    """Validate the bytes of a config.json.

    Args:
        text: the content of the file.
        source: its name in error messages.

    Raises:
        ModelError: it is not JSON, or not the config of a cascadezoo model.
    """
    try:
        data = parse_json(text, source)
    except SpecError as error:
        raise ModelError(error.what, hint=REPAIR, code="model-config-not-json") from None
    if data.get("library_name") != "cascadezoo":
        raise ModelError(
            f"{source} is not the config of a cascadezoo model",
            hint="load the model with the library that wrote it",
            code="model-config-foreign",
        )
    # Error messages contain keys: an untrusted one must not flood or control the terminal.
    if (key := _unfit_key(data)) is not None:
        raise ModelError(
            f"{source} has an unprintable or overlong key: {key[:40]!a}",
            hint=REPAIR,
            code="model-config-key",
        )
    try:
        config = ModelConfig.model_validate(data)
    except ValidationError as error:
        problems = list(islice(problems_of(error, data, ""), 20))
        lines = "\n".join(f"  {p}" for p in problems)
        raise ModelError(
            f"{source} does not validate:\n{lines}",
            hint="a newer cascadezoo may have written it: pip install --upgrade cascadezoo",
            code="model-config-invalid",
            problems={p.path: p.code for p in problems},
        ) from None
    stated = config.spec.get("data")
    if not isinstance(stated, dict):
        stated = {}
    if missing := [name for name in FROM_DATA if stated.get(name) is None]:
        raise ModelError(
            f"the spec in {source} is not resolved: data.{missing[0]} is missing",
            hint=f"{REPAIR}; a build writes a complete spec",
            code="model-spec-unresolved",
            names=[f"data.{name}" for name in missing],
        )
    for name in config.files:
        if not is_model_file(name):
            raise ModelError(
                f"{source} lists {name!a}, which is not part of a model",
                hint=REPAIR,
                code="model-config-lists-strange",
                name=name,
            )
    return config


def _unfit_key(data: Any) -> str | None:
    """Return a key that is not printable or too long, or None."""
    level = [data]
    while level:
        for item in level:
            for key in item if isinstance(item, dict) else ():
                if not key.isprintable() or len(key) > LONGEST_KEY:
                    return str(key)
        level = [
            child
            for item in level
            for child in (item.values() if isinstance(item, dict) else item)
            if isinstance(child, (dict, list))
        ]
    return None


def link_fault(folder: Path, name: str) -> str | None:
    """Return the fault of a file that is a link or in a linked folder; None for other files."""
    path = folder / name
    if path.is_symlink() and not is_cache_link(folder, path):
        return f"{name} is a symbolic link"
    for part in Path(name).parents[:-1]:
        if (folder / part).is_symlink():
            return f"{part.as_posix()} is a symbolic link"
    return None


def is_snapshot(folder: Path) -> bool:
    """Whether a folder is a snapshot in the Hub's cache."""
    return folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--")


def is_cache_link(folder: Path, path: Path) -> bool:
    """Whether a link in a snapshot points to the blobs of its repo, as the Hub's client makes it.

    ```
    models--org--name/snapshots/COMMIT/config.json -> ../../blobs/SHA
    models--org--name/blobs/SHA                      a file, or a link to the store that all repos
    blobs/AB/SHA256                                  of the cache share
    ```
    """
    repo = folder.parent.parent
    blobs = repo / "blobs"
    if not is_snapshot(folder) or blobs.is_symlink():
        return False
    target = Path(os.path.realpath(path))
    shared = Path(os.path.realpath(repo.parent)) / "blobs"
    return target.parent == Path(os.path.realpath(blobs)) or target.parent.parent == shared
