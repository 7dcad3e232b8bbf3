"""Creates and verifies zoo entries of models on the Hub."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from cascadezoo.errors import HubError, ModelError, ModelReferenceError
from cascadezoo.hub.cache import CachedRepo, git_blob_sha, is_offline
from cascadezoo.hub.refs import HubRef, parse_reference
from cascadezoo.model_folder.layout import CONFIG, FileRecord
from cascadezoo.model_folder.snapshots import hub_cache
from cascadezoo.util.files import sha256_of
from cascadezoo.util.limits import is_commit, is_sha256
from cascadezoo.zoo.entry import FolderSource, ModelSource, belongs_to_model, compare, describe
from cascadezoo.zoo.list import bundled_folder
from cascadezoo.zoo.manifest import ZooModel

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

__all__ = ["HubSource", "verify", "zoo_entry"]

MAX_FILES = 10_000
MAX_BYTES = 16 << 20
"""Largest file that is downloaded for hashing; the Hub states the sha256 of LFS files."""


def verify(model: ZooModel, *, offline: bool = False) -> list[str]:
    """Compare an entry with its model: files, hashes and metadata.

    For a model on the Hub, the small files are downloaded into the Hub's cache and the Hub states
    the sha256 of the weights. ``offline`` reads all files from the cache.

    Args:
        model: the entry.
        offline: use the local cache only.

    Returns:
        The faults; empty if the entry is correct.

    Raises:
        HubError: the request failed, or the repo or commit does not exist.
        ModelError: the model is not in the local cache.
    """
    return compare(model, _source(model, offline))


def _source(model: ZooModel, offline: bool) -> ModelSource:
    folder = bundled_folder(model)
    if folder is not None:
        return FolderSource(folder, model.name)
    if model.repo is None or model.commit is None:  # the schema of a manifest excludes this
        raise ModelError(
            f"{model.name} has no repo and no commit", code="model-nowhere", name=model.name
        )
    if not (offline or is_offline()):
        from cascadezoo.hub.client import hub_api

        return HubSource(hub_api(), model.repo, model.commit)
    snapshot = CachedRepo.of(model.repo).snapshot(model.commit)
    if not (snapshot / CONFIG).is_file():
        raise ModelError(
            f"{model.name} is not in the local cache of the Hub ({model.repo}@{model.commit})",
            hint=f"run cascadezoo pull {model.name} without --offline and HF_HUB_OFFLINE",
            code="model-not-cached",
            name=model.name,
        )
    return FolderSource(snapshot, f"the cached copy of {model.repo}")


def zoo_entry(reference: str, *, name: str | None = None) -> ZooModel:
    """The entry of a published model, pinned to the current commit of its revision.

    Args:
        reference: ``org/name``, ``org/name@revision`` or ``hf://org/name@revision``.
        name: the model's name in the zoo; None takes its spec's name.

    Raises:
        ModelReferenceError: the reference is not a repo, or names a pull request.
        HubError: the request failed, or the repo or revision does not exist.
        ModelError: the repo does not hold a complete model with figures.
    """
    ref = parse_reference(reference)
    if not isinstance(ref, HubRef):
        raise ModelReferenceError(
            f"{reference!r} is not a repo on the Hub, and a zoo lists only such repos",
            hint="run cascadezoo publish MODEL org/name, then cascadezoo zoo add org/name",
            code="reference-not-a-repo",
            name=reference,
        )
    if (ref.revision or "").startswith("refs/pr"):
        raise ModelReferenceError(
            f"{ref.revision} of {ref.repo_id} is a pull request, whose commits may disappear",
            hint="merge it, then add the branch",
            code="reference-pull-request",
            name=ref.repo_id,
        )
    from cascadezoo.hub.client import hub_api, translated

    api = hub_api()
    with translated(f"{ref.repo_id} on the Hub"):
        commit = api.model_info(ref.repo_id, revision=ref.revision).sha
    if commit is None or not is_commit(commit):
        raise HubError(
            f"the Hub returned no commit of {ref.repo_id}",
            hint="try again later",
            code="hub-no-commit",
            name=ref.repo_id,
        )
    return describe(HubSource(api, ref.repo_id, commit), name=name, repo=ref.repo_id, commit=commit)


class HubSource:
    """A model repo on the Hub at a commit. Weights are not downloaded: the Hub states their sha256.

    Args:
        api: the client.
        repo: ``org/name``.
        commit: 40 hexadecimal digits.

    Raises:
        HubError: the request failed, or the repo or commit does not exist.
    """

    def __init__(self, api: HfApi, repo: str, commit: str) -> None:
        self.api = api
        self.repo = repo
        self.commit = commit
        self.where = f"{repo}@{commit}"
        self._files: dict[str, RepoFile] = {}
        self._records: dict[str, FileRecord] = {}
        self._paths: dict[str, Path] = {}
        from cascadezoo.hub.client import translated

        with translated(f"the files of {self.where}"):
            self._files = {file.path: file for file in self._tree()}

    def _tree(self) -> Iterator[RepoFile]:
        from huggingface_hub.hf_api import RepoFile

        from cascadezoo.hub.client import malformed

        tree = self.api.list_repo_tree(self.repo, recursive=True, revision=self.commit)
        for count, item in enumerate(islice(tree, MAX_FILES + 1)):
            if count == MAX_FILES:
                raise ModelError(
                    f"{self.where} has more than {MAX_FILES} files, so it is not a model",
                    code="model-too-many-files",
                )
            if not isinstance(item, RepoFile):
                continue
            if not _is_described(item):
                raise malformed(self.where, "no names, sizes and hashes of the files")
            if belongs_to_model(item.path):
                yield item

    def names(self) -> list[str]:
        """The model files of the repo, sorted."""
        return sorted(self._files)

    def record(self, name: str) -> FileRecord:
        """sha256 and size of a file; of a large one as the Hub states them.

        Raises:
            HubError: the download failed.
            ModelError: the file is too large for a download, or arrives damaged twice.
        """
        if name not in self._records:
            file = self._files[name]
            if file.lfs is not None:
                record = FileRecord(sha256=file.lfs.sha256, size=file.lfs.size)
            else:
                record = FileRecord(sha256=sha256_of(self.path(name)), size=file.size)
            self._records[name] = record
        return self._records[name]

    def path(self, name: str) -> Path:
        """A checked copy of the file in the Hub's cache, downloaded if it is not cached.

        Raises:
            HubError: the download failed.
            ModelError: the file is too large for a download, or arrives damaged twice.
        """
        if name not in self._paths:
            file = self._files[name]
            if file.size > MAX_BYTES:
                raise ModelError(
                    f"{self.where}: {name} has {file.size} bytes, more than the limit of "
                    f"{MAX_BYTES}",
                    code="model-file-too-large",
                    name=name,
                    size=file.size,
                )
            path = self._fetch(name)
            if not _is_sound(path, file):
                # The client neither checks a download nor deletes a damaged one.
                path = self._fetch(name, force=True)
                if not _is_sound(path, file):
                    raise ModelError(
                        f"{self.where}: {name} arrived damaged twice",
                        hint="try again later",
                        code="model-remote-damaged",
                        name=name,
                    )
            self._paths[name] = path
        return self._paths[name]

    def _fetch(self, name: str, *, force: bool = False) -> Path:
        from cascadezoo.hub.client import Download, translated

        file = Download(name, self._files[name].size, self.commit)
        with translated(f"{name} of {self.where}", file=file):
            return Path(
                self.api.hf_hub_download(
                    self.repo,
                    name,
                    revision=self.commit,
                    cache_dir=hub_cache(),
                    force_download=force,
                )
            )


def _is_described(file: RepoFile) -> bool:
    """Whether the Hub states the path, size and hash of a file, in the types that it uses."""
    hashed = is_commit(file.blob_id) if file.lfs is None else is_sha256(file.lfs.sha256)
    sizes = [file.size, *([] if file.lfs is None else [file.lfs.size])]
    sized = all(type(size) is int and size >= 0 for size in sizes)
    return isinstance(file.path, str) and hashed and sized


def _is_sound(path: Path, file: RepoFile) -> bool:
    if path.stat().st_size != file.size:
        return False
    if file.lfs is not None:
        return sha256_of(path) == file.lfs.sha256
    with path.open("rb") as content:
        return git_blob_sha(content, file.size) == file.blob_id
