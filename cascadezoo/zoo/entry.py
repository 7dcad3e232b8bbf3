"""Entries of a zoo: made from a model, compared with it, and written into a manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from cascadezoo.errors import InputError, ModelError
from cascadezoo.model_folder.layout import (
    CARD,
    CONFIG,
    METRICS,
    FileRecord,
    is_model_file,
    read_config,
)
from cascadezoo.model_folder.metrics_file import parse_metrics
from cascadezoo.spec import CascadeSpec
from cascadezoo.spec.faults import problems_of
from cascadezoo.util.files import sha256_of
from cascadezoo.zoo.manifest import Manifest, ZooModel, read_manifest_file, write_manifest

__all__ = [
    "FolderSource",
    "ModelSource",
    "add_entry",
    "bundled_entry",
    "compare",
    "describe",
    "is_ours",
]


class ModelSource(Protocol):
    """A model as it lies somewhere."""

    where: str

    def names(self) -> list[str]:
        """The files of the layout that are there, sorted."""
        ...

    def record(self, name: str) -> FileRecord:
        """sha256 and size of a file that is there."""
        ...

    def path(self, name: str) -> Path:
        """A copy on this machine of a small file that is there: its folder is laid out alike."""
        ...


class FolderSource:
    """A model folder on this machine.

    Args:
        folder: the folder; it may be a snapshot in the Hub's cache.
        where: how messages name it; None takes the folder's path.
    """

    def __init__(self, folder: Path, where: str | None = None) -> None:
        self.folder = folder
        self.where = str(folder) if where is None else where
        self._records: dict[str, FileRecord] = {}

    def names(self) -> list[str]:
        """The files of the layout that are there, sorted."""
        found = (
            p.relative_to(self.folder).as_posix() for p in self.folder.rglob("*") if p.is_file()
        )
        return sorted(name for name in found if is_ours(name))

    def record(self, name: str) -> FileRecord:
        """sha256 and size of a file."""
        if name not in self._records:
            path = self.folder / name
            self._records[name] = FileRecord(sha256=sha256_of(path), size=path.stat().st_size)
        return self._records[name]

    def path(self, name: str) -> Path:
        """The file."""
        return self.folder / name


def describe(
    source: ModelSource,
    *,
    name: str | None = None,
    repo: str | None = None,
    commit: str | None = None,
) -> ZooModel:
    """The zoo entry of a model; of one that ships with cascadezoo where there is no repo.

    Args:
        source: where the model lies.
        name: what it is called in the zoo; None takes the spec's name.
        repo: the repo on the Hub.
        commit: the commit in it.

    Raises:
        ModelError: the model is not whole, or has no figures.
        HubError: what is needed cannot be fetched.
    """
    names = source.names()
    for needed, why in ((CONFIG, "so it is not a model"), (METRICS, "so nothing is known of it")):
        if needed not in names:
            raise ModelError(
                f"{source.where} has no {needed}, {why}",
                hint="publish the run of a finished build: cascadezoo publish RUN org/name",
                code="model-no-figures",
                name=needed,
            )
    config = read_config(source.path(CONFIG).parent)
    faults = []
    for file, record in config.files.items():
        if file not in names:
            faults.append(f"{file} is missing")
        elif file != CARD and source.record(file) != record:
            faults.append(f"{file} is not what {CONFIG} says")
    faults += [f"{CONFIG} has no sha256 of {n}" for n in names if n not in {CONFIG, *config.files}]
    if faults:
        raise ModelError(
            f"{source.where}: {'; '.join(faults)}",
            hint="publish the model again",
            code="model-entry-files",
            faults=tuple(faults),
        )
    spec = _spec(config.spec, source)
    data = {
        "name": spec.name if name is None else name,
        "description": " ".join(spec.description.split()),
        "bundled": repo is None,
        "repo": repo,
        "commit": commit,
        "spec_digest": config.spec_digest,
        "files": {file: source.record(file).model_dump() for file in names},
        "size": spec.data.size,
        "data": spec.data.source,
        "license": spec.license,
        "requires": config.requires,
        **_measured(source),
    }
    try:
        return ZooModel.model_validate(data)
    except ValidationError as error:
        raise _invalid(source, error, data, "cannot be an entry of a zoo") from None


def compare(model: ZooModel, source: ModelSource) -> list[str]:
    """What is wrong with a zoo entry or with the model that it stands for; empty where all holds.

    Raises:
        HubError: the Hub cannot be asked.
    """
    there = set(source.names())
    faults = [f"{name} is missing" for name in model.files if name not in there]
    faults += [f"{name} is not in the entry" for name in sorted(there - set(model.files))]
    for name, record in model.files.items():
        if name not in there:
            continue
        found = source.record(name)
        if found.size != record.size:
            faults.append(f"{name} has {found.size} bytes, not {record.size}")
        elif found.sha256 != record.sha256:
            faults.append(f"{name} has sha256 {found.sha256}, not {record.sha256}")
    if faults:
        return faults
    try:
        true = describe(source, name=model.name, repo=model.repo, commit=model.commit)
    except ModelError as error:
        return [error.what]
    rows = ((field, getattr(model, field), getattr(true, field)) for field in _DERIVED)
    return [f"the entry's {name} is not the model's" for name, one, two in rows if one != two]


_DERIVED = (
    "description",
    "spec_digest",
    "size",
    "parameters",
    "data",
    "license",
    "requires",
    "metrics",
)


def is_ours(name: str) -> bool:
    """Whether a file of a repo or folder is part of a model."""
    return name == CONFIG or is_model_file(name)


def _spec(data: dict[str, Any], source: ModelSource) -> CascadeSpec:
    try:
        return CascadeSpec.model_validate(data)
    except ValidationError as error:
        raise _invalid(
            source, error, data, f"has a spec that does not validate in its {CONFIG}"
        ) from None


def _measured(source: ModelSource) -> dict[str, Any]:
    """Parameters and figures of metrics.json, as an entry has them."""
    where = f"{METRICS} of {source.where}"
    try:
        metrics = parse_metrics(source.path(METRICS).read_bytes(), where)
    except ModelError as error:
        raise ModelError(
            error.what, hint="publish the model again", code="model-entry-form"
        ) from None
    return {
        "parameters": sum(stage.parameters for stage in metrics.stages),
        "metrics": {
            figure.name: {"value": figure.value, "std": figure.std, "unit": figure.unit}
            for figure in metrics.figures
        },
    }


def _invalid(source: ModelSource, error: ValidationError, data: Any, what: str) -> ModelError:
    problems = list(problems_of(error, data, ""))
    lines = "\n".join(f"  {problem}" for problem in problems)
    return ModelError(
        f"{source.where} {what}:\n{lines}",
        hint="it may be of a newer cascadezoo: pip install --upgrade cascadezoo",
        code="model-entry-invalid",
        problems={p.path: p.code for p in problems},
    )


def bundled_entry(folder: Path) -> ZooModel:
    """The entry of a model folder that ships with cascadezoo, for zoo_manifest.json.

    Raises:
        ModelError: the model is not whole, or has no figures.
    """
    return describe(FolderSource(folder))


def add_entry(model: ZooModel, path: Path) -> ZooModel | None:
    """Write an entry into a manifest file, which is made where there is none.

    Returns:
        The entry of the same name and repo that was there before.

    Raises:
        InputError: the manifest has that name for another model, or cannot be read or written.
    """
    manifest = read_manifest_file(path) or Manifest(version=1, models=[])
    before = next((m for m in manifest.models if m.name == model.name), None)
    if before is not None and before.repo != model.repo:
        raise InputError(
            f"{path} has a model {model.name!r} already: {before.repo or 'a bundled one'}",
            hint="give the new one another name: --name NAME",
            code="input-zoo-name-taken",
            path=path,
            name=model.name,
        )
    if before != model:
        rest = [m for m in manifest.models if m.name != model.name]
        write_manifest(path, manifest.model_copy(update={"models": [*rest, model]}))
    return before
