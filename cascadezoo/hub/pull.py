"""``pull``: fetches a model into the Hub's cache or a folder, and checks it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cascadezoo.hub.fetch import pull_hub
from cascadezoo.hub.folder_copy import check_copy_target, checked_files, copy_model
from cascadezoo.hub.locate import locate
from cascadezoo.model_folder.files import file_size
from cascadezoo.model_folder.layout import CONFIG, is_snapshot, model_name, read_config

__all__ = ["Pulled", "pull", "pull_hub"]


@dataclass(frozen=True, slots=True)
class Pulled:
    """The result of a pull.

    Args:
        reference: the requested reference.
        name: the model's name.
        folder: the model folder; every file has been checked.
        repo: the repo on the Hub; None for a local model.
        commit: the commit of that repo.
        files: size in bytes of every file, by its path in the folder.
        changed: whether ``--to`` wrote anything; None without it.
        replaced: the copy in that folder replaced an older version.
    """

    reference: str
    name: str
    folder: Path
    repo: str | None
    commit: str | None
    files: dict[str, int]
    changed: bool | None = None
    replaced: bool = False

    @property
    def size(self) -> int:
        """Size in bytes of all files."""
        return sum(self.files.values())

    def __str__(self) -> str:
        return str(self.folder)

    def to_dict(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {
            "reference": self.reference,
            "name": self.name,
            "folder": str(self.folder),
            "repo": self.repo,
            "commit": self.commit,
            "bytes": self.size,
            "files": self.files,
            "changed": self.changed,
            "replaced": self.replaced,
        }


def pull(
    reference: str | Path,
    dest: str | Path | None = None,
    *,
    revision: str | None = None,
    offline: bool | None = None,
) -> Pulled:
    """Fetch a model and check every file.

    Args:
        reference: a folder, a zoo name, or a repo on the Hub; see
            :func:`~cascadezoo.hub.refs.parse_reference`.
        dest: the folder for a copy: a new or empty one, or one with an older version of the same
            model. The complete copy is renamed to it. None makes no copy: the model stays in the
            Hub's cache or in its folder.
        revision: branch, tag or commit of a repo on the Hub; None is ``main``.
        offline: True sends no request; None follows ``HF_HUB_OFFLINE``.

    Raises:
        ModelReferenceError: the model does not exist, or the reference is ambiguous.
        HubError: the repo does not exist, denies access, or cannot be reached.
        ModelError: it is not a model, is too large, or arrives damaged twice.
        RunFolderError: ``dest`` holds something else, or cannot be written.
    """
    target = None if dest is None else Path(dest).expanduser()
    if target is not None:
        check_copy_target(target)
    folder = locate(reference, revision, offline)
    repo = commit = None
    if is_snapshot(folder):
        repo = folder.parent.parent.name.removeprefix("models--").replace("--", "/")
        commit = folder.name
    if target is not None:
        copy = copy_model(folder, target)
        return Pulled(
            str(reference), copy.name, target, repo, commit, copy.files, copy.changed, copy.replaced
        )
    config = read_config(folder)
    names = (CONFIG, *checked_files(folder, config))
    sizes = {name: file_size(folder, name) for name in names}
    return Pulled(str(reference), model_name(config), folder, repo, commit, sizes)
