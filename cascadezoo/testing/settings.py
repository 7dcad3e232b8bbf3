"""The settings of checks in a plugin's ``pyproject.toml``, under ``[tool.cascadezoo.check]``."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote, urlparse

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cascadezoo.errors import InputError
from cascadezoo.plugins.manager import canonical_name
from cascadezoo.spec.configs import ImageShape

__all__ = ["CheckSettings", "find_settings"]

Size = Annotated[int, Field(ge=1, le=4096)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Output(_Model):
    channels: Size
    size: Size
    latent: bool = False
    tokens: Annotated[int, Field(ge=1)] | None = None


class _Neighbour(_Model):
    kind: str
    config: dict[str, Any] = {}


class CheckSettings(_Model):
    """The settings of one entry."""

    config: dict[str, Any] = {}
    """Settings of the entry, as in a spec; small networks are faster to check."""

    output: _Output | None = None
    """The shape of a stage's images or latents."""

    neighbour: _Neighbour | None = None
    """Kind and config of the stage that a stage is trained with."""

    num_classes: Annotated[int, Field(ge=1)] | None = 4
    """Number of labels."""

    skip: list[str] = []
    """Checks to skip."""

    def place(self) -> dict[str, Any]:
        """The arguments of :func:`cascadezoo.testing.check_stage` that place a stage."""
        place: dict[str, Any] = {"num_classes": self.num_classes}
        if self.output is not None:
            place["output"] = ImageShape(**self.output.model_dump())
        if self.neighbour is not None:
            place["neighbour"] = self.neighbour.model_dump()
        return place


def find_settings(name: str) -> dict[str, CheckSettings]:
    """The settings of a distribution's entries, by the name of the entry.

    They are read from the ``pyproject.toml`` of an editable installation, or of the current folder
    if it is that distribution's.

    Args:
        name: the distribution.

    Raises:
        InputError: the settings are invalid, or the file of the editable installation is.
    """
    project = _project_of(name)
    for folder in (project, Path.cwd()):
        file = None if folder is None else folder / "pyproject.toml"
        if file is None or not file.is_file():
            continue
        try:
            data = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            if folder != project:
                continue  # of whatever project the current folder is
            raise InputError(
                f"{file} cannot be read: {error}",
                hint="correct it: the settings of the checks are in it",
                code="input-check-settings",
                path=file,
            ) from error
        if canonical_name(str(_table(data, "project").get("name", ""))) == canonical_name(name):
            return _parsed(_table(data, "tool").get("cascadezoo", {}), file)
    return {}


def _table(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A table of a TOML file; an empty one in place of any other value, which pip reports."""
    row = data.get(key, {})
    return row if isinstance(row, Mapping) else {}


def _project_of(name: str) -> Path | None:
    """The folder of an editable installation."""
    try:
        text = distribution(name).read_text("direct_url.json")
        url = urlparse(str(json.loads(text or "{}").get("url", "")))
    except (PackageNotFoundError, OSError, ValueError, AttributeError):
        return None
    return Path(unquote(url.path)) if url.scheme == "file" else None


def _parsed(tool: Any, file: Path) -> dict[str, CheckSettings]:
    rows = tool.get("check", {}) if isinstance(tool, Mapping) else None
    unknown = sorted(set(tool) - {"check"}) if isinstance(tool, Mapping) else []
    fault = f"the key {unknown[0]!r} is unknown" if unknown else None
    settings = {}
    if not isinstance(rows, Mapping):
        fault = "check must be a table of entries"
    else:
        for name, row in rows.items():
            try:
                settings[str(name)] = CheckSettings.model_validate(row)
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                path = ".".join(map(str, ("check", name, *first["loc"])))
                fault = f"{path}: {first['msg']}"
    if fault is not None:
        raise InputError(
            f"[tool.cascadezoo] in {file} is invalid: {fault}",
            hint="an entry may have config, output, neighbour, num_classes and skip",
            code="input-check-settings",
            path=file,
        )
    return settings
