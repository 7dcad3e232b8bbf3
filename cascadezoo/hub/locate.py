"""Resolves a reference to a model folder."""

from __future__ import annotations

from pathlib import Path

from cascadezoo.errors import HubNotFoundError, ModelReferenceError
from cascadezoo.hub.fetch import pull_hub
from cascadezoo.hub.refs import FORMS, HF, HubRef, parse_reference, path_exists
from cascadezoo.model_folder.files import CONFIG, file_exists
from cascadezoo.zoo.list import bundled_folder, find

__all__ = ["locate"]


def locate(reference: str | Path, revision: str | None = None, offline: bool | None = None) -> Path:
    """Resolve a reference to a model folder; a model on the Hub is pulled.

    Args:
        reference: a model folder, the run folder of a build, a zoo name, or a repo on the Hub;
            see :func:`~cascadezoo.hub.refs.parse_reference`.
        revision: branch, tag or commit of a repo on the Hub; None is ``main``.
        offline: True sends no request and uses the cache; None follows ``HF_HUB_OFFLINE``.

    Returns:
        The model folder. The files of a pulled model have been compared with its config.json.

    Raises:
        ModelReferenceError: the model does not exist, or the reference is ambiguous.
        HubError: the repo does not exist, denies access, or cannot be reached.
        ModelError: the repo holds no model, or arrives damaged twice.
    """
    parsed = parse_reference(reference, revision)
    if isinstance(parsed, Path):
        return _local_folder(parsed, str(reference))
    if isinstance(parsed, HubRef):
        try:
            return pull_hub(parsed, offline=offline)
        except HubNotFoundError as error:
            if str(reference).startswith(HF):
                raise
            raise HubNotFoundError(
                f"{error.what} (nor is {str(reference)!r} a local folder)",
                hint=error.hint,
                code=error.code,
                name=str(reference),
            ) from error
    model = find(parsed.name)
    folder = bundled_folder(model)
    if folder is not None or model.repo is None:
        return _local_folder(folder or Path(parsed.name), parsed.name)
    return pull_hub(HubRef(model.repo, model.commit), offline=offline, records=model.files)


def _local_folder(path: Path, text: str) -> Path:
    if path_exists(path) and path.is_dir():
        for folder in (path, path / "model"):
            if file_exists(folder, CONFIG):
                return folder
        if (path / "run.json").is_file():
            raise ModelReferenceError(
                f"{text} is a run without a finished model",
                hint=f"cascadezoo build {path / 'spec.json'} -o {text}",
                code="reference-unfinished",
                path=path,
            )
        raise ModelReferenceError(
            f"{text} contains no model: it has no {CONFIG}",
            hint="give the run folder of a finished build, or its model/ folder",
            code="reference-no-model",
            path=path,
        )
    if path_exists(path):
        raise ModelReferenceError(
            f"{text} is a file, not a model folder", hint=FORMS, code="reference-is-file", path=path
        )
    raise ModelReferenceError(
        f"model {text!r} not found: no such folder",
        hint="check the spelling of the path",
        code="reference-no-folder",
        path=path,
    )
