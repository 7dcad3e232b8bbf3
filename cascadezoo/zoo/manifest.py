"""zoo_manifest.json: the pretrained models, their locations and their hashes."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from cascadezoo.errors import InputError, SpecError
from cascadezoo.model_folder.integrity import refuse_bundled
from cascadezoo.model_folder.layout import CONFIG, FileRecord, is_model_file
from cascadezoo.spec import parse_json
from cascadezoo.spec.configs import Model
from cascadezoo.spec.faults import problems_of
from cascadezoo.util.files import disk_full, write_atomically
from cascadezoo.util.limits import COMMIT, REPO, SHA256

__all__ = [
    "MANIFEST",
    "Manifest",
    "ZooFigure",
    "ZooModel",
    "load",
    "parse_manifest",
    "read_manifest",
    "read_manifest_file",
    "write_manifest",
]

MANIFEST = "zoo_manifest.json"

_NAME = r"^[a-z][a-z0-9]*([-_.][a-z0-9]+)*$"
# A name and versions in pip's form, without URLs and shell metacharacters.
_REQUIREMENT = r"^[A-Za-z0-9][A-Za-z0-9._-]*(\[[A-Za-z0-9._, -]*\])?[A-Za-z0-9.,<>=!~*+ -]*$"

FigureName = Annotated[str, Field(pattern=r"^[a-z0-9][A-Za-z0-9._:-]*$", max_length=120)]


class ZooFigure(Model):
    """A figure for lists; the model's metrics.json records how it was measured."""

    value: float
    std: Annotated[float, Field(ge=0)] | None = None
    unit: Annotated[str, Field(max_length=40)] | None = None


class ZooModel(Model):
    """One pretrained model: its location, hashes and metadata."""

    name: Annotated[str, Field(pattern=_NAME, max_length=80)]
    """The model's name in the zoo."""
    description: Annotated[str, Field(max_length=4000)] = ""
    bundled: bool = False
    """Whether the model ships with cascadezoo; it then has neither repo nor commit."""
    repo: Annotated[str, Field(pattern=REPO, max_length=200)] | None = None
    """The repo on the Hub, `org/name`."""
    commit: Annotated[str, Field(pattern=COMMIT)] | None = None
    """The full commit of the repo; a branch or tag could move."""
    spec_digest: Annotated[str, Field(pattern=SHA256)]
    """sha256 of the resolved spec."""
    files: Annotated[dict[str, FileRecord], Field(min_length=1, max_length=65)]
    """sha256 and size in bytes of every file of the model, including config.json."""
    size: Annotated[int, Field(ge=1, le=65536)]
    """Height and width of the images in pixels."""
    parameters: Annotated[int, Field(ge=0)]
    data: Annotated[str, Field(max_length=200)]
    """The registered name of the training dataset."""
    license: Annotated[str, Field(max_length=80)]
    requires: Annotated[
        list[Annotated[str, Field(pattern=_REQUIREMENT, max_length=200)]], Field(max_length=64)
    ] = []
    """The distributions of the stage kinds, as requirements for pip."""
    metrics: Annotated[dict[FigureName, ZooFigure], Field(max_length=256)] = {}
    """The figures of metrics.json, by name."""

    @property
    def bytes(self) -> int:
        """Size of all files in bytes."""
        return sum(record.size for record in self.files.values())

    @field_validator("files")
    @classmethod
    def _files_of_a_model(cls, files: dict[str, FileRecord]) -> dict[str, FileRecord]:
        if CONFIG not in files:
            raise ValueError(f"has no {CONFIG}")
        for name in files:
            if name != CONFIG and not is_model_file(name):
                raise ValueError(f"lists {name!r}, which is not a model file")
        return files

    @model_validator(mode="after")
    def _has_one_location(self) -> Self:
        if self.bundled and (self.repo or self.commit):
            raise ValueError("is bundled, so repo and commit are not allowed")
        if not self.bundled and not (self.repo and self.commit):
            raise ValueError("needs a repo and a commit, or bundled")
        return self


class Manifest(Model):
    """The content of zoo_manifest.json."""

    version: Literal[1]
    models: Annotated[list[ZooModel], Field(max_length=10_000)]
    defaults: dict[Literal["upscale", "refine"], str] = {}
    """The model that a command uses if the user gives none, by command."""

    @model_validator(mode="after")
    def _defaults_are_listed(self) -> Self:
        names = {model.name for model in self.models}
        for task, name in self.defaults.items():
            if name not in names:
                raise ValueError(f"has {name!r} as default of {task}, which it does not list")
        return self

    @field_validator("models")
    @classmethod
    def _names_are_unique(cls, models: list[ZooModel]) -> list[ZooModel]:
        seen: set[str] = set()
        for model in models:
            if model.name in seen:
                raise ValueError(f"has two models named {model.name!r}")
            seen.add(model.name)
        return models

    def to_json(self) -> str:
        """The manifest as JSON text with the models sorted by name and a final newline."""
        models = sorted(self.models, key=lambda model: model.name)
        data = {"version": self.version, "models": [model_dict(model) for model in models]}
        if self.defaults:
            data["defaults"] = dict(sorted(self.defaults.items()))
        return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def model_dict(model: ZooModel) -> dict[str, Any]:
    """An entry as JSON data for a manifest; figures omit missing values."""
    data = model.model_dump(mode="json")
    data["metrics"] = {
        name: figure.model_dump(exclude_none=True) for name, figure in model.metrics.items()
    }
    return data


def load() -> dict[str, Any]:
    """The data of the packaged manifest; in a checkout, of the manifest at its top level.

    Raises:
        FileNotFoundError: the manifest is missing, so the installation is incomplete.
        SpecError: it is not JSON.
    """
    packaged = resources.files("cascadezoo").joinpath(MANIFEST)
    if packaged.is_file():
        text = packaged.read_bytes()
    else:
        # In an editable install the manifest is beside the package.
        text = (Path(__file__).parents[2] / MANIFEST).read_bytes()
    return parse_json(text, MANIFEST)


@cache
def read_manifest() -> Manifest:
    """The packaged manifest; see :func:`load`.

    Raises:
        InputError: it does not validate.
    """
    return parse_manifest(load(), MANIFEST)


def parse_manifest(data: object, source: str) -> Manifest:
    """Validate the data of a manifest.

    Args:
        data: parsed JSON of the form of :class:`Manifest`.
        source: the manifest's name in messages.

    Raises:
        InputError: the data do not validate; the error lists every fault and its path.
    """
    try:
        return Manifest.model_validate(data)
    except ValidationError as error:
        problems = list(problems_of(error, data, ""))
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise InputError(
            f"{source} is not a zoo manifest:\n{lines}",
            hint="write entries with cascadezoo zoo add REF; docs/hub.md describes them",
            code="input-manifest-invalid",
            problems={p.path: p.code for p in problems},
        ) from None


def read_manifest_file(path: Path) -> Manifest | None:
    """The manifest in a file; None if the file does not exist.

    Raises:
        InputError: it cannot be read or does not validate.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}", code="input-manifest-unreadable", path=path
        ) from error
    try:
        data = parse_json(text, str(path))
    except SpecError as error:
        raise InputError(
            error.what,
            hint="correct the file, or choose another --manifest",
            code="input-manifest-not-json",
        ) from None
    return parse_manifest(data, str(path))


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write a manifest atomically: an error leaves the old content.

    Raises:
        InputError: the file cannot be written, or is inside a bundled model.
    """
    refuse_bundled(path)
    try:
        write_atomically(path, manifest.to_json().encode())
    except OSError as error:
        raise disk_full(error, path) or InputError(
            f"{path} cannot be written: {error.strerror}",
            hint="choose another --manifest",
            code="input-manifest-not-writable",
            path=path,
        ) from error
