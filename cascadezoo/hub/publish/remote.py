"""A repo on the Hub as a publish finds it, and what has to change there."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import HfApi

from cascadezoo.cards.card_file import merge_cards
from cascadezoo.errors import HubRefusedError, HubUnavailableError, ModelError
from cascadezoo.hub.client import translated
from cascadezoo.hub.publish.contents import Piece, Prepared
from cascadezoo.model_folder.layout import CARD, CONFIG, ModelConfig, is_model_file, parse_config
from cascadezoo.util.limits import LARGEST_CARD, LARGEST_JSON, is_commit

__all__ = ["Remote", "RemoteFile", "RepoChanges", "look", "plan_changes"]

_NO_HUB = "look at HF_ENDPOINT and proxies: what answers there may be no Hub"


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a commit, by what the Hub tells of it.

    Args:
        size: in bytes.
        git_sha: sha1 of its git blob; of an LFS file that is its pointer's.
        sha256: of an LFS file's content.
    """

    size: int
    git_sha: str
    sha256: str | None = None

    def holds(self, piece: Piece) -> bool:
        """Whether its content is that of a file here."""
        if self.size != piece.size:
            return False
        if self.sha256 is not None:
            return self.sha256 == piece.sha256
        return self.git_sha == piece.git_sha


@dataclass(frozen=True, slots=True)
class Remote:
    """A branch of a repo at one moment.

    Args:
        repo_id: ``org/name``.
        commit: what the branch leads to; empty where there is no repo yet.
        files: the files of that commit, by their paths.
        private: whether only its owners see it.
    """

    repo_id: str
    commit: str = ""
    files: Mapping[str, RemoteFile] = field(default_factory=dict)
    private: bool = False


@dataclass(frozen=True, slots=True)
class RepoChanges:
    """What a commit on top of a state has to do.

    Args:
        wanted: every file of the model as it shall be, by its path.
        added: the files that are new or changed.
        deleted: files of an older version that this one does not have.
        card_kept: somebody edited the card on the Hub, and it was merged with the new one.
    """

    wanted: Mapping[str, Piece]
    added: tuple[Piece, ...]
    deleted: tuple[str, ...]
    card_kept: bool

    def __bool__(self) -> bool:
        return bool(self.added or self.deleted)


def look(api: HfApi, repo_id: str, revision: str | None) -> Remote:
    """What a repo holds, by one request, so that commit and files belong together.

    Raises:
        HubNotFoundError: there is no such repo, or no such branch in it.
        HubError: the Hub cannot be asked.
    """
    where = repo_id if revision is None else f"{repo_id}@{revision}"
    with translated(where):
        info = api.model_info(repo_id, revision=revision, files_metadata=True)
    files = {}
    for file in info.siblings or []:
        # Without these, what is there already could not be told from what has to be sent.
        if file.size is None or file.blob_id is None:
            raise HubUnavailableError(
                f"{where}: the Hub does not tell what its files are",
                hint=_NO_HUB,
                code="hub-unavailable-answer",
            )
        sha256 = None if file.lfs is None else file.lfs.sha256
        files[file.rfilename] = RemoteFile(file.size, file.blob_id, sha256)
    if not isinstance(info.sha, str) or not is_commit(info.sha):
        raise HubUnavailableError(
            f"{where}: the Hub does not tell its commit",
            hint=_NO_HUB,
            code="hub-unavailable-answer",
        )
    return Remote(repo_id, info.sha, files, bool(info.private))


def plan_changes(api: HfApi, prepared: Prepared, remote: Remote) -> RepoChanges:
    """What has to be done so that a repo holds a model and nothing of an older version of it.

    Files that are no part of a model, such as .gitattributes or a LICENSE that a person put
    there, stay.

    Raises:
        HubRefusedError: the repo holds a model of another library.
        HubError: the Hub cannot be asked.
    """
    before = _config_there(api, prepared, remote)
    wanted = dict(prepared.pieces)
    kept = _card_there(api, prepared, remote, before)
    if kept is not None:
        wanted[CARD] = Piece.of(CARD, kept.encode())
    added = [p for n, p in wanted.items() if n not in remote.files or not remote.files[n].holds(p)]
    deleted = [n for n in remote.files if n not in wanted and _is_stale(n)]
    return RepoChanges(wanted, tuple(added), tuple(sorted(deleted)), kept is not None)


def _is_stale(name: str) -> bool:
    return is_model_file(name) or name.startswith("stages/")


def _config_there(api: HfApi, prepared: Prepared, remote: Remote) -> ModelConfig | None:
    if CONFIG not in remote.files:
        return None
    if remote.files[CONFIG].holds(prepared.pieces[CONFIG]):
        return prepared.config  # requests for it would count as downloads
    text = _read(api, remote, CONFIG, LARGEST_JSON)
    try:
        return parse_config(text, f"{CONFIG} of {remote.repo_id}")
    except ModelError as error:
        raise HubRefusedError(
            f"{remote.repo_id} holds something else than a cascadezoo model: {error.what}",
            hint="nothing was sent. Publish to another repo, or empty this one first",
            code="hub-refused-repo-foreign",
            name=remote.repo_id,
        ) from None


def _card_there(
    api: HfApi, prepared: Prepared, remote: Remote, before: ModelConfig | None
) -> str | None:
    """The card that keeps what a person wrote on the Hub; None where nobody did.

    Every config.json that was published holds the sha256 of the card that the model itself had, so
    that a card that differs from it is one that somebody edited.
    """
    file = remote.files.get(CARD)
    if file is None or file.holds(prepared.pieces[CARD]):
        return None
    data = _read(api, remote, CARD, LARGEST_CARD)
    record = before.files.get(CARD) if before is not None else None
    if record is not None and record.sha256 == hashlib.sha256(data).hexdigest():
        return None
    return merge_cards(prepared.card, data.decode(errors="replace"))


def _read(api: HfApi, remote: Remote, name: str, limit: int) -> bytes:
    """The content of a small file, compared with what the Hub says it is."""
    file = remote.files[name]
    where = f"{name} of {remote.repo_id}"
    if file.size > limit:
        raise HubRefusedError(
            f"{where} has {file.size} bytes, more than the {limit} that one may have",
            hint="nothing was sent. Publish to another repo, or delete that file first",
            code="hub-refused-file-too-large",
            size=file.size,
        )
    with tempfile.TemporaryDirectory() as folder, translated(where):
        path = api.hf_hub_download(
            remote.repo_id, name, revision=remote.commit, cache_dir=folder, token=api.token
        )
        content = Path(path).read_bytes()
    if not file.holds(Piece.of(name, content)):
        raise HubUnavailableError(
            f"{where} arrived damaged",
            hint="run the same command again",
            code="hub-unavailable-damaged",
        )
    return content
