"""The state of a repo on the Hub, and the changes that a publish makes to it."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import HfApi

from cascadezoo.cards.card_file import merge_cards
from cascadezoo.errors import HubRefusedError, HubUnavailableError, ModelError
from cascadezoo.hub.client import Download, malformed, remote_text, translated
from cascadezoo.hub.publish.contents import ModelFile, Prepared
from cascadezoo.model_folder.layout import CARD, CONFIG, ModelConfig, is_model_file, parse_config
from cascadezoo.util.limits import LARGEST_CARD, LARGEST_JSON, is_commit, is_sha256

__all__ = ["Remote", "RemoteFile", "RepoChanges", "plan_changes", "read_remote"]


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a commit, as the Hub describes it.

    Args:
        size: its size in bytes.
        git_sha: sha1 of its git blob; for an LFS file, of the pointer.
        sha256: sha256 of an LFS file's content.
    """

    size: int
    git_sha: str
    sha256: str | None = None

    def holds(self, model_file: ModelFile) -> bool:
        """Whether its content is that of a local file."""
        if self.size != model_file.size:
            return False
        if self.sha256 is not None:
            return self.sha256 == model_file.sha256
        return self.git_sha == model_file.git_sha


@dataclass(frozen=True, slots=True)
class Remote:
    """A branch of a repo at one moment.

    Args:
        repo_id: ``org/name``.
        commit: the commit of the branch; empty if the repo does not exist.
        files: the files of that commit, by their paths.
        private: whether only its owners see it.
    """

    repo_id: str
    commit: str = ""
    files: Mapping[str, RemoteFile] = field(default_factory=dict)
    private: bool = False


@dataclass(frozen=True, slots=True)
class RepoChanges:
    """The changes from the current files of a repo to a model.

    Args:
        wanted: every file of the model, by its path.
        added: the files that are new or changed.
        deleted: files of an older version that the new one lacks.
        card_kept: the card was edited on the Hub and is merged with the new one.
    """

    wanted: Mapping[str, ModelFile]
    added: tuple[ModelFile, ...]
    deleted: tuple[str, ...]
    card_kept: bool

    def __bool__(self) -> bool:
        return bool(self.added or self.deleted)


def read_remote(api: HfApi, repo_id: str, revision: str | None) -> Remote:
    """Read a branch by one request, so that the files belong to the commit.

    Raises:
        HubNotFoundError: the repo or the branch does not exist.
        HubError: the request failed.
    """
    where = repo_id if revision is None else f"{repo_id}@{revision}"
    with translated(where):
        info = api.model_info(repo_id, revision=revision, files_metadata=True)
    files = {}
    for file in info.siblings or []:
        sha256 = None if file.lfs is None else file.lfs.sha256
        name, size, sha1 = file.rfilename, file.size, file.blob_id
        # Without these, new files cannot be distinguished from existing ones.
        sized = type(size) is int and size >= 0
        hashed = is_commit(sha1) and (sha256 is None or is_sha256(sha256))
        if not isinstance(name, str) or size is None or sha1 is None or not (sized and hashed):
            raise malformed(where, "no names, sizes and hashes of the files")
        files[name] = RemoteFile(size, sha1, sha256)
    if info.sha is None or not is_commit(info.sha):
        raise malformed(where, "no commit")
    return Remote(repo_id, info.sha, files, info.private is True)


def plan_changes(api: HfApi, prepared: Prepared, remote: Remote) -> RepoChanges:
    """Plan the changes after which a repo holds a model and no file of an older version.

    Files that are not part of a model, such as .gitattributes or a LICENSE, are kept.

    Raises:
        HubRefusedError: the repo holds a model of another library.
        HubError: the request failed.
    """
    older = _remote_config(api, prepared, remote)
    wanted = dict(prepared.files)
    merged = _merged_card(api, prepared, remote, older)
    if merged is not None:
        wanted[CARD] = ModelFile.of(CARD, merged.encode())
    added = [p for n, p in wanted.items() if n not in remote.files or not remote.files[n].holds(p)]
    deleted = [n for n in remote.files if n not in wanted and _is_stale(n)]
    return RepoChanges(wanted, tuple(added), tuple(sorted(deleted)), merged is not None)


def _is_stale(name: str) -> bool:
    return is_model_file(name) or name.startswith("stages/")


def _remote_config(api: HfApi, prepared: Prepared, remote: Remote) -> ModelConfig | None:
    if CONFIG not in remote.files:
        return None
    if remote.files[CONFIG].holds(prepared.files[CONFIG]):
        return prepared.config  # the Hub would count a request as a download
    text = _read(api, remote, CONFIG, LARGEST_JSON)
    try:
        return parse_config(text, f"{CONFIG} of {remote.repo_id}")
    except ModelError as error:
        raise HubRefusedError(
            f"{remote.repo_id} contains something other than a cascadezoo model: "
            f"{remote_text(error.what)}",
            hint="nothing was sent. Publish to another repo, or empty this one first",
            code="hub-refused-repo-foreign",
            name=remote.repo_id,
        ) from None


def _merged_card(
    api: HfApi, prepared: Prepared, remote: Remote, older: ModelConfig | None
) -> str | None:
    """The new card merged with the edits on the Hub; None if the card was not edited.

    A published config.json records the sha256 of the model's own card. A card with another sha256
    has been edited.
    """
    file = remote.files.get(CARD)
    if file is None or file.holds(prepared.files[CARD]):
        return None
    data = _read(api, remote, CARD, LARGEST_CARD)
    record = older.files.get(CARD) if older is not None else None
    if record is not None and record.sha256 == hashlib.sha256(data).hexdigest():
        return None
    return merge_cards(prepared.card, data.decode(errors="replace"))


def _read(api: HfApi, remote: Remote, name: str, limit: int) -> bytes:
    """The content of a small file, compared with its hash on the Hub."""
    file = remote.files[name]
    where = f"{name} of {remote.repo_id}"
    if file.size > limit:
        raise HubRefusedError(
            f"{where} has {file.size} bytes, more than the limit of {limit}",
            hint="nothing was sent. Publish to another repo, or delete that file first",
            code="hub-refused-file-too-large",
            size=file.size,
        )
    expected = Download(name, file.size, remote.commit)
    with tempfile.TemporaryDirectory() as folder, translated(where, file=expected):
        path = api.hf_hub_download(
            remote.repo_id, name, revision=remote.commit, cache_dir=folder, token=api.token
        )
        content = Path(path).read_bytes()
    if not file.holds(ModelFile.of(name, content)):
        raise HubUnavailableError(
            f"{where} arrived damaged",
            hint="run the same command again",
            code="hub-unavailable-damaged",
        )
    return content
