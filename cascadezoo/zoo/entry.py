"""Creates zoo entries from models, compares the two, and writes entries to a manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from cascadezoo.errors import InputError, ModelError
from cascadezoo.model_folder.files import file_sha256, read_file, stat_file
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
from cascadezoo.zoo.manifest import Manifest, ZooModel, read_manifest_file, write_manifest

__all__ = [
    "FolderSource",
    "ModelSource",
    "add_entry",
    "belongs_to_model",
    "bundled_entry",
    "compare",
    "describe",
]


class ModelSource(Protocol):
    """Access to the files of a model in a folder or a repo."""

    where: str

    def names(self) -> list[str]:
        """The model files of the source, sorted."""
        ...

    def record(self, name: str) -> FileRecord:
        """sha256 and size of a file in ``names()``."""
        ...

    def path(self, name: str) -> Path:
        """A local copy of a small file in ``names()``, at the same relative path."""
        ...


class FolderSource:
    """A model folder on this machine.

    Args:
        folder: the folder; it may be a snapshot in the Hub's cache.
        where: the folder's name in messages; None takes its path.
    """

    def __init__(self, folder: Path, where: str | None = None) -> None:
        self.folder = folder
        self.where = str(folder) if where is None else where
        self._records: dict[str, FileRecord] = {}

    def names(self) -> list[str]:
        """The model files of the folder, sorted."""
        names = (
            p.relative_to(self.folder).as_posix() for p in self.folder.rglob("*") if p.is_file()
        )
        return sorted(name for name in names if belongs_to_model(name))

    def record(self, name: str) -> FileRecord:
        """sha256 and size of a file."""
        if name not in self._records:
            size = stat_file(self.folder, name).st_size
            self._records[name] = FileRecord(sha256=file_sha256(self.folder, name), size=size)
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
    """The zoo entry of a model; without a repo, of a bundled model.

    Args:
        source: the model.
        name: the model's name in the zoo; None takes the spec's name.
        repo: the repo on the Hub; None for a bundled model.
        commit: the commit in the repo.

    Raises:
        ModelError: the model is incomplete, or has no figures.
        HubError: a file cannot be downloaded.
    """
    names = source.names()
    for required, why in ((CONFIG, "so it is not a model"), (METRICS, "so it has no figures")):
        if required not in names:
            raise ModelError(
                f"{source.where} has no {required}, {why}",
                hint="publish the run of a finished build: cascadezoo publish RUN org/name",
                code="model-no-figures",
                name=required,
            )
    config = read_config(source.path(CONFIG).parent)
    faults = []
    for file, record in config.files.items():
        if file not in names:
            faults.append(f"{file} is missing")
        elif file != CARD and source.record(file) != record:
            faults.append(f"{file} differs from its record in {CONFIG}")
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
        **_figures(source),
    }
    try:
        return ZooModel.model_validate(data)
    except ValidationError as error:
        raise _invalid(source, error, data, "cannot be listed in a zoo") from None


def compare(model: ZooModel, source: ModelSource) -> list[str]:
    """Compare a zoo entry with its model.

    Returns:
        The faults; empty if the entry is correct.

    Raises:
        HubError: a request to the Hub failed.
    """
    names = set(source.names())
    faults = [f"{name} is missing" for name in model.files if name not in names]
    faults += [f"{name} is not in the entry" for name in sorted(names - set(model.files))]
    for name, record in model.files.items():
        if name not in names:
            continue
        actual = source.record(name)
        if actual.size != record.size:
            faults.append(f"{name} has {actual.size} bytes, not {record.size}")
        elif actual.sha256 != record.sha256:
            faults.append(f"{name} has sha256 {actual.sha256}, not {record.sha256}")
    if faults:
        return faults
    try:
        derived = describe(source, name=model.name, repo=model.repo, commit=model.commit)
    except ModelError as error:
        return [error.what]
    rows = ((field, getattr(model, field), getattr(derived, field)) for field in _DERIVED)
    return [f"{name} of the entry differs from the model" for name, one, two in rows if one != two]


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


def belongs_to_model(name: str) -> bool:
    """Whether a file of a repo or folder is part of a model."""
    return name == CONFIG or is_model_file(name)


def _spec(data: dict[str, Any], source: ModelSource) -> CascadeSpec:
    try:
        return CascadeSpec.model_validate(data)
    except ValidationError as error:
        raise _invalid(
            source, error, data, f"has a {CONFIG} with a spec that does not validate"
        ) from None


def _figures(source: ModelSource) -> dict[str, Any]:
    """Parameters and figures of metrics.json, in the form of an entry."""
    where = f"{METRICS} of {source.where}"
    try:
        metrics = parse_metrics(read_file(source.path(METRICS).parent, METRICS), where)
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
        hint="if a newer cascadezoo wrote it, run pip install --upgrade cascadezoo",
        code="model-entry-invalid",
        problems={p.path: p.code for p in problems},
    )


def bundled_entry(folder: Path) -> ZooModel:
    """The entry of a bundled model folder, for zoo_manifest.json.

    Raises:
        ModelError: the model is incomplete, or has no figures.
    """
    return describe(FolderSource(folder))


def add_entry(model: ZooModel, path: Path) -> ZooModel | None:
    """Write an entry to a manifest file, which is created if it does not exist.

    Returns:
        The replaced entry, of the same name and repo; None for a new entry.

    Raises:
        InputError: another model has that name, or the file cannot be read or written.
    """
    manifest = read_manifest_file(path) or Manifest(version=1, models=[])
    replaced = next((m for m in manifest.models if m.name == model.name), None)
    if replaced is not None and replaced.repo != model.repo:
        raise InputError(
            f"{path} already lists a model {model.name!r}: {replaced.repo or 'a bundled one'}",
            hint="choose another name with --name NAME",
            code="input-zoo-name-taken",
            path=path,
            name=model.name,
        )
    if replaced != model:
        rest = [m for m in manifest.models if m.name != model.name]
        write_manifest(path, manifest.model_copy(update={"models": [*rest, model]}))
    return replaced
