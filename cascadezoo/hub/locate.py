"""From a reference to the model folder that it leads to."""

from __future__ import annotations

from pathlib import Path

from cascadezoo.errors import HubNotFoundError, ModelReferenceError
from cascadezoo.hub.fetch import pull_hub
from cascadezoo.hub.refs import FORMS, HF, HubRef, is_there, parse_reference
from cascadezoo.model_folder.layout import CONFIG
from cascadezoo.zoo.list import bundled_folder, find

__all__ = ["locate"]


def locate(reference: str | Path, revision: str | None = None, offline: bool | None = None) -> Path:
    """The model folder that a reference leads to; pulls it where it lies on the Hub.

    Args:
        reference: a model folder, the run folder that holds one, a zoo name, or a repo on the
            Hub; see :func:`~cascadezoo.hub.refs.parse_reference`.
        revision: of a repo on the Hub: a branch, a tag or a commit; None is ``main``.
        offline: True sends no request and takes what was pulled before; None does so where
            ``HF_HUB_OFFLINE`` is set.

    Returns:
        A folder whose files are there. What was pulled has been compared with its config.json.

    Raises:
        ModelReferenceError: the reference leads nowhere, or has two meanings.
        HubError: the Hub has no such repo, denies it, or cannot be reached.
        ModelError: what the Hub has is no model, or arrives damaged twice.
    """
    found = parse_reference(reference, revision)
    if isinstance(found, Path):
        return _local_folder(found, str(reference))
    if isinstance(found, HubRef):
        try:
            return pull_hub(found, offline=offline)
        except HubNotFoundError as error:
            if str(reference).startswith(HF):
                raise
            raise HubNotFoundError(
                f"{error.what} (there is no folder {str(reference)!r} here either)",
                hint=error.hint,
                code=error.code,
                name=str(reference),
            ) from error
    model = find(found.name)
    folder = bundled_folder(model)
    if folder is not None or model.repo is None:
        return _local_folder(folder or Path(found.name), found.name)
    return pull_hub(HubRef(model.repo, model.commit), offline=offline, records=model.files)


def _local_folder(path: Path, text: str) -> Path:
    if is_there(path) and path.is_dir():
        for folder in (path, path / "model"):
            if (folder / CONFIG).is_file():
                return folder
        if (path / "run.json").is_file():
            raise ModelReferenceError(
                f"{text} is a run that has no finished model yet",
                hint=f"cascadezoo build {path / 'spec.json'} -o {text}",
                code="reference-unfinished",
                path=path,
            )
        raise ModelReferenceError(
            f"{text} holds no model: there is no {CONFIG} in it",
            hint="give the run folder of a finished build, or its model/ folder",
            code="reference-no-model",
            path=path,
        )
    if is_there(path):
        raise ModelReferenceError(
            f"{text} is a file, not a model folder", hint=FORMS, code="reference-is-file", path=path
        )
    raise ModelReferenceError(
        f"there is no model {text!r}: no such folder",
        hint="look at how the path is written",
        code="reference-no-folder",
        path=path,
    )
