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

from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from cascadezoo.errors import ModelError, SpecError
from cascadezoo.model_folder.files import (
    CARD,
    CONFIG,
    METRICS,
    REPAIR,
    SAMPLES,
    is_model_file,
    model_files,
    read_file,
    weights_path,
)
from cascadezoo.model_folder.snapshots import is_snapshot
from cascadezoo.spec import parse_json
from cascadezoo.spec.configs import Model
from cascadezoo.spec.faults import problems_of
from cascadezoo.spec.models import FROM_DATA
from cascadezoo.util.limits import SHA256

__all__ = [
    "CARD",
    "CONFIG",
    "METRICS",
    "REPAIR",
    "SAMPLES",
    "FileRecord",
    "ModelConfig",
    "is_model_file",
    "is_snapshot",
    "model_files",
    "model_name",
    "parse_config",
    "read_config",
    "weights_path",
]

LONGEST_KEY = 200
"""Largest number of characters of a key in config.json; names of stages are far shorter."""


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


def model_name(config: ModelConfig) -> str:
    """The model's name in its spec."""
    return str(config.spec.get("name"))


def read_config(folder: Path) -> ModelConfig:
    """Read and validate config.json.

    Raises:
        ModelError: it is missing, is not JSON, or is not the config of a cascadezoo model.
    """
    try:
        text = read_file(folder, CONFIG)
    except FileNotFoundError:
        raise ModelError(
            f"{folder} is not a model folder: it has no {CONFIG}",
            hint="give the run folder of a finished build, or a pulled model",
            code="model-no-config",
            path=folder,
        ) from None
    return parse_config(text, str(folder / CONFIG))


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
