"""``pull``: a model from wherever it is, checked, into the Hub's cache or a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cascadezoo.hub.fetch import pull_hub
from cascadezoo.hub.folder_copy import check_place, copy_model, whole_files
from cascadezoo.hub.locate import locate
from cascadezoo.model_folder.layout import CONFIG, is_snapshot, model_name, read_config

__all__ = ["Pulled", "pull", "pull_hub"]


@dataclass(frozen=True, slots=True)
class Pulled:
    """What a pull brought, and where it is.

    Args:
        reference: what was asked for.
        name: the model's name.
        folder: the model folder, with every file of it checked.
        repo: the repo on the Hub; None for what came from a folder.
        commit: the commit of that repo.
        files: size in bytes of every file, by its path in the folder.
        changed: whether ``--to`` wrote anything; None without it.
        replaced: an older version was in that folder before.
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
    """Fetch a model and check every file of it.

    Args:
        reference: a folder, a zoo name, or a repo on the Hub; see
            :func:`~cascadezoo.hub.refs.parse_reference`.
        dest: the folder to put it into: a new or empty one, or one that holds an older version of
            the same model. It takes its place whole, by a rename. None leaves the model where it
            is: in the Hub's cache, or in the folder.
        revision: of a repo on the Hub: a branch, a tag or a commit; None is ``main``.
        offline: True sends no request; None does so where ``HF_HUB_OFFLINE`` is set.

    Raises:
        ModelReferenceError: the reference leads nowhere, or has two meanings.
        HubError: the Hub has no such repo, denies it, or cannot be reached.
        ModelError: it is no model, is too large, or arrives damaged twice.
        RunFolderError: ``dest`` holds something else, or cannot be written.
    """
    place = None if dest is None else Path(dest).expanduser()
    if place is not None:
        check_place(place)
    folder = locate(reference, revision, offline)
    repo = commit = None
    if is_snapshot(folder):
        repo = folder.parent.parent.name.removeprefix("models--").replace("--", "/")
        commit = folder.name
    if place is not None:
        done = copy_model(folder, place)
        return Pulled(
            str(reference), done.name, place, repo, commit, done.files, done.changed, done.replaced
        )
    config = read_config(folder)
    names = (CONFIG, *whole_files(folder, config))
    sizes = {name: (folder / name).stat().st_size for name in names}
    return Pulled(str(reference), model_name(config), folder, repo, commit, sizes)
