"""zoo_manifest.json: which pretrained models there are, where they lie and what they must be."""

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
from cascadezoo.util.files import write_atomically
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
# A name and versions, as pip writes them: no address to fetch from, nothing that a shell acts on.
_REQUIREMENT = r"^[A-Za-z0-9][A-Za-z0-9._-]*(\[[A-Za-z0-9._, -]*\])?[A-Za-z0-9.,<>=!~*+ -]*$"

FigureName = Annotated[str, Field(pattern=r"^[a-z0-9][A-Za-z0-9._:-]*$", max_length=120)]


class ZooFigure(Model):
    """A figure as lists show it; the model's metrics.json tells how it was got."""

    value: float
    std: Annotated[float, Field(ge=0)] | None = None
    unit: Annotated[str, Field(max_length=40)] | None = None


class ZooModel(Model):
    """One pretrained model: where it lies and what it must be."""

    name: Annotated[str, Field(pattern=_NAME, max_length=80)]
    """What the model is called in the zoo."""
    description: Annotated[str, Field(max_length=4000)] = ""
    bundled: bool = False
    """Whether the model ships inside cascadezoo; it then has neither repo nor commit."""
    repo: Annotated[str, Field(pattern=REPO, max_length=200)] | None = None
    """The repo on the Hub, `org/name`."""
    commit: Annotated[str, Field(pattern=COMMIT)] | None = None
    """The commit of the repo, in full: a branch or tag could move."""
    spec_digest: Annotated[str, Field(pattern=SHA256)]
    """sha256 of the resolved spec."""
    files: Annotated[dict[str, FileRecord], Field(min_length=1, max_length=65)]
    """sha256 and size in bytes of every file of the model, config.json among them."""
    size: Annotated[int, Field(ge=1, le=65536)]
    """Height and width of the images in pixels."""
    parameters: Annotated[int, Field(ge=0)]
    data: Annotated[str, Field(max_length=200)]
    """The dataset that the model was trained on, by its registered name."""
    license: Annotated[str, Field(max_length=80)]
    requires: Annotated[
        list[Annotated[str, Field(pattern=_REQUIREMENT, max_length=200)]], Field(max_length=64)
    ] = []
    """The distributions that the kinds come from, as pip names them."""
    metrics: Annotated[dict[FigureName, ZooFigure], Field(max_length=256)] = {}
    """The figures of metrics.json, by their names."""

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
                raise ValueError(f"lists {name!r}, which is not part of a model")
        return files

    @model_validator(mode="after")
    def _lies_somewhere(self) -> Self:
        if self.bundled and (self.repo or self.commit):
            raise ValueError("is bundled, so it has neither repo nor commit")
        if not self.bundled and not (self.repo and self.commit):
            raise ValueError("needs a repo and the commit in it, or bundled")
        return self


class Manifest(Model):
    """The content of zoo_manifest.json."""

    version: Literal[1]
    models: Annotated[list[ZooModel], Field(max_length=10_000)]

    @field_validator("models")
    @classmethod
    def _names_are_unique(cls, models: list[ZooModel]) -> list[ZooModel]:
        seen: set[str] = set()
        for model in models:
            if model.name in seen:
                raise ValueError(f"has two models of the name {model.name!r}")
            seen.add(model.name)
        return models

    def to_json(self) -> str:
        """The manifest as JSON text, models by name, with a newline at its end."""
        models = sorted(self.models, key=lambda model: model.name)
        data = {"version": self.version, "models": [model_dict(model) for model in models]}
        return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def model_dict(model: ZooModel) -> dict[str, Any]:
    """An entry as a manifest holds it; what a figure does not have is left out of it."""
    data = model.model_dump(mode="json")
    data["metrics"] = {
        name: figure.model_dump(exclude_none=True) for name, figure in model.metrics.items()
    }
    return data


def load() -> dict[str, Any]:
    """The data of the manifest that ships with the package; in a checkout, of the one at its top.

    Raises:
        FileNotFoundError: there is none, so the installation is not whole.
        SpecError: it is not JSON.
    """
    packaged = resources.files("cascadezoo").joinpath(MANIFEST)
    if packaged.is_file():
        text = packaged.read_bytes()
    else:
        # An editable install imports from the checkout, whose manifest lies beside the package.
        text = (Path(__file__).parents[2] / MANIFEST).read_bytes()
    return parse_json(text, MANIFEST)


@cache
def read_manifest() -> Manifest:
    """The manifest that ships with the package; see :func:`load`.

    Raises:
        InputError: it does not validate.
    """
    return parse_manifest(load(), MANIFEST)


def parse_manifest(data: object, source: str) -> Manifest:
    """Validate the data of a manifest.

    Args:
        data: what :class:`Manifest` describes, as JSON gives it.
        source: how messages name it.

    Raises:
        InputError: with every fault and its path.
    """
    try:
        return Manifest.model_validate(data)
    except ValidationError as error:
        problems = list(problems_of(error, data, ""))
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise InputError(
            f"{source} is not a zoo manifest:\n{lines}",
            hint="`cascadezoo zoo add REF` writes entries; docs/hub.md describes them",
            code="input-manifest-invalid",
            problems={p.path: p.code for p in problems},
        ) from None


def read_manifest_file(path: Path) -> Manifest | None:
    """The manifest in a file; None where there is no such file.

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
            hint="mend the file, or give another --manifest",
            code="input-manifest-not-json",
        ) from None
    return parse_manifest(data, str(path))


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write a manifest; the file holds either its old or its new content, whatever happens.

    Raises:
        InputError: it cannot be written, or is inside a model that ships with cascadezoo.
    """
    refuse_bundled(path)
    try:
        write_atomically(path, manifest.to_json().encode())
    except OSError as error:
        raise InputError(
            f"{path} cannot be written: {error.strerror}",
            hint="choose another --manifest",
            code="input-manifest-not-writable",
            path=path,
        ) from error
