"""zoo_manifest.json: the models of the zoo."""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from cascadezoo.configs import Model
from cascadezoo.hub.layout import FileRecord
from cascadezoo.spec import parse_json

__all__ = ["Manifest", "ZooModel", "read_manifest"]

MANIFEST = "zoo_manifest.json"


class ZooModel(Model):
    """One pretrained model: where it lies and what it must be."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*([-_.][a-z0-9]+)*$", max_length=80)]
    repo: Annotated[str, Field(max_length=200)]
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    spec_digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    files: dict[str, FileRecord]
    parameters: Annotated[int, Field(ge=0)]
    data: Annotated[str, Field(max_length=200)]
    license: Annotated[str, Field(max_length=80)]
    requires: list[str]
    metrics: dict[str, Any] = {}


class Manifest(Model):
    """The content of zoo_manifest.json."""

    version: Literal[1]
    models: list[ZooModel]


@cache
def read_manifest() -> Manifest:
    """The manifest that ships with the package; in a checkout, the one at its top."""
    packaged = resources.files("cascadezoo").joinpath(MANIFEST)
    if packaged.is_file():
        text = packaged.read_bytes()
    else:
        # An editable install imports from the checkout, whose manifest lies beside the package.
        text = (Path(__file__).parents[2] / MANIFEST).read_bytes()
    return Manifest.model_validate(parse_json(text, MANIFEST))
