"""Download models from the Hub; every file matches the sha256 of the repo's config.json.

The Hub's client downloads into its own cache, which other programs share. It neither checks the
sha256 of a download nor deletes a damaged one; this module does both.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from cascadezoo.errors import (
    HubError,
    HubNotFoundError,
    HubUnavailableError,
    ModelError,
    ModelReferenceError,
)
from cascadezoo.hub.cache import CachedRepo, is_offline
from cascadezoo.hub.refs import HubRef
from cascadezoo.model_folder.files import file_sha256
from cascadezoo.model_folder.integrity import file_faults
from cascadezoo.model_folder.layout import (
    CARD,
    CONFIG,
    METRICS,
    SAMPLES,
    FileRecord,
    ModelConfig,
    read_config,
)
from cascadezoo.util.limits import (
    LARGEST_CARD,
    LARGEST_JSON,
    LARGEST_METRICS,
    LARGEST_SAMPLES,
    byte_limit,
)
from cascadezoo.util.retry import hub_patience, retry

__all__ = ["LIMIT_VARIABLE", "largest_model", "pull_hub"]

LIMIT_VARIABLE = "CASCADEZOO_MAX_BYTES"

_LARGEST_MODEL = 50 << 30
_LARGEST = {
    CONFIG: LARGEST_JSON,
    CARD: LARGEST_CARD,
    METRICS: LARGEST_METRICS,
    SAMPLES: LARGEST_SAMPLES,
}
_MAIN = "main"
_WAITS = (0.5, 1.0)
"""Seconds before a request is repeated; the client itself waits longer if it may."""
_LONGEST_WAIT = 30.0

_log = logging.getLogger("cascadezoo.hub")


def largest_model() -> int:
    """The size limit of a model in bytes: ``CASCADEZOO_MAX_BYTES``, or 50 GiB.

    Raises:
        InputError: the variable is not an integer.
    """
    return byte_limit(LIMIT_VARIABLE, _LARGEST_MODEL)


def pull_hub(
    ref: HubRef,
    *,
    offline: bool | None = None,
    records: Mapping[str, FileRecord] | None = None,
) -> Path:
    """Download a model into the Hub's cache and check every file.

    One request resolves a branch or tag to its commit; all other requests name the commit. Only
    config.json and the files that it lists are downloaded, unless they are cached.

    Args:
        ref: the repo and its revision.
        offline: send no request; None follows ``HF_HUB_OFFLINE``.
        records: the sha256 and size of the files in a zoo entry, which must match too.

    Returns:
        The snapshot folder. It may contain other files of the repo, which are not checked.

    Raises:
        HubError: the repo does not exist, denies access or cannot be reached, and is not cached;
            or the server sends more than it may, too slowly, or not as a Hub.
        ModelError: the repo holds no model, is too large, or arrives damaged twice.
    """
    with hub_patience():
        return _Pull(ref, is_offline() if offline is None else offline, records).run()


@dataclass
class _Pull:
    ref: HubRef
    offline: bool
    records: Mapping[str, FileRecord] | None
    repo: CachedRepo = field(init=False)
    commit: str = ""
    folder: Path = field(default_factory=Path)

    def __post_init__(self) -> None:
        self.repo = CachedRepo.of(self.ref.repo_id)

    def run(self) -> Path:
        self.commit = self.resolve()
        self.folder = self.repo.snapshot(self.commit)
        # The client fetches config.json first: the Hub counts its requests as downloads.
        self.ensure_sound(CONFIG, None, self.config_fault)
        config = read_config(self.folder)
        self.compare(config)
        self.limit(config)
        for name, record in config.files.items():
            self.ensure_sound(name, record.size, partial(self.fault, name, config))
        if self.ref.revision != self.commit:
            self.repo.remember(self.ref.revision or _MAIN, self.commit)
        return self.folder

    def resolve(self) -> str:
        """The commit of the revision; sends one request unless it is pinned or offline is set."""
        revision = self.ref.revision or _MAIN
        if self.ref.pinned:
            return revision
        cached = self.repo.commit(revision)
        if self.offline:
            if cached is None:
                raise self.not_cached(str(self.ref))
            return cached
        try:
            commit, size, _ = retry(
                lambda: self.metadata(CONFIG, revision), _WAITS, longest=_LONGEST_WAIT
            )
        except HubUnavailableError as error:
            if cached is None or not (self.repo.snapshot(cached) / CONFIG).exists():
                raise
            _log.warning("%s; using the cached commit %s", error.what, cached)
            return cached
        self.check_size(CONFIG, size, None)
        return commit

    def metadata(self, name: str, revision: str) -> tuple[str, int | None, str]:
        """The commit of a revision, and size and blob of a file in it, by one request."""
        from cascadezoo.hub.client import hub_api, translated

        with translated(f"{name} of {self.ref}"):
            from huggingface_hub import hf_hub_url

            api = hub_api()
            url = hf_hub_url(self.ref.repo_id, name, revision=revision, endpoint=api.endpoint)
            metadata = api.get_hf_file_metadata(url=url)
        commit = metadata.commit_hash or ""
        if not HubRef(self.ref.repo_id, commit).pinned:
            raise HubUnavailableError(
                f"the response for {self.ref} names no commit, so the server is not a Hub",
                hint="check HF_ENDPOINT, the proxies and the network's login page",
                code="hub-unavailable-no-hub",
            )
        return commit, metadata.size, metadata.etag or ""

    # --- one file

    def ensure_sound(
        self, name: str, size: int | None, find_fault: Callable[[], str | None]
    ) -> None:
        """Put a sound copy of a file into the cache; a damaged one is downloaded once more."""
        for last in (False, True):
            if not self.fetch(name, size):
                return
            fault = find_fault()
            if fault is None:
                return
            where = f"{self.ref} (commit {self.commit})"
            if self.offline:
                raise ModelError(
                    f"the cached copy of {where} is damaged: {fault}",
                    hint="pull it again without --offline and HF_HUB_OFFLINE",
                    code="model-cache-damaged",
                    name=name,
                )
            self.evict(name, fault)
            if last:
                raise ModelError(
                    f"{where}: {fault}, also after a second download",
                    hint="the file was deleted. Try again later or use another revision; if the "
                    "error persists, the published model is damaged: report it to its publisher",
                    code="model-remote-damaged",
                    name=name,
                )

    def fetch(self, name: str, size: int | None) -> bool:
        """Put a file into the cache; False for a card that the repo does not have."""
        if (self.folder / name).exists():
            return True
        if self.offline:
            if name == CARD:
                return False
            raise self.not_cached(f"{name} of {self.ref}")
        try:
            retry(lambda: self.download(name, size), _WAITS, longest=_LONGEST_WAIT)
        except HubNotFoundError as error:
            if name == CARD:
                return False
            if name == CONFIG:
                raise
            raise ModelError(
                f"{self.ref} (commit {self.commit}) is incomplete: its {CONFIG} lists {name}, "
                "which is not in the repo",
                hint="use another revision, or report it to its publisher",
                code="model-remote-incomplete",
                name=name,
            ) from error
        return True

    def download(self, name: str, size: int | None) -> None:
        from cascadezoo.hub.client import Download, hub_api, translated

        _, announced, blob = self.metadata(name, self.commit)
        self.check_size(name, announced, size)
        if announced is None:
            announced = None if name == CARD else size
        if announced is None:
            announced = _LARGEST.get(name, largest_model())
        file = Download(name, announced, self.commit)
        try:
            with translated(f"{name} of {self.ref}", file=file):
                hub_api().hf_hub_download(
                    self.ref.repo_id,
                    name,
                    revision=self.commit,
                    cache_dir=self.repo.folder.parent,
                )
        except HubError as error:
            if error.code == "hub-answer-too-large":
                self.repo.discard(blob)
            raise

    def evict(self, name: str, fault: str) -> None:
        try:
            self.repo.evict(self.commit, name)
        except OSError as error:
            raise ModelError(
                f"{self.folder}: {fault}, and the file cannot be deleted: {error.strerror}",
                hint="delete it yourself, or set HF_HUB_CACHE to a writable folder",
                code="model-cache-not-removable",
                path=self.folder,
            ) from error

    def config_fault(self) -> str | None:
        record = (self.records or {}).get(CONFIG)
        if record is not None and file_sha256(self.folder, CONFIG) != record.sha256:
            return f"the sha256 of {CONFIG} differs from the zoo entry"
        return self.repo.fault(self.commit, CONFIG)

    def fault(self, name: str, config: ModelConfig) -> str | None:
        fault = file_faults(self.folder, config, [name], trust_verified=True).get(name)
        if fault is not None and name == CARD:
            # People edit the card on the Hub; the Hub's sha then applies, not config.json's.
            return self.repo.fault(self.commit, CARD)
        return fault

    # --- limits

    def compare(self, config: ModelConfig) -> None:
        """Compare config.json with the records of the zoo entry."""
        if self.records is None:
            return
        listed = {n: r for n, r in self.records.items() if n not in (CONFIG, CARD)}
        actual = {n: r for n, r in config.files.items() if n != CARD}
        changed = sorted(n for n in {*listed, *actual} if listed.get(n) != actual.get(n))
        if changed:
            raise ModelError(
                f"{self.ref} differs from its zoo entry: {', '.join(changed)}",
                hint="cascadezoo zoo verify shows the faults; report them to the zoo's maintainer",
                code="model-not-of-zoo",
                names=tuple(changed),
            )

    def limit(self, config: ModelConfig) -> None:
        """Check the sizes in config.json before the files are downloaded."""
        for name, record in config.files.items():
            self.check_size(name, record.size, None)
        total = sum(record.size for record in config.files.values())
        if total > largest_model():
            raise ModelError(
                f"{self.ref} has {total} bytes, more than the limit of {largest_model()}",
                hint=f"to allow it: {LIMIT_VARIABLE}={total} cascadezoo pull {self.ref}",
                code="model-too-large",
                size=total,
            )

    def check_size(self, name: str, size: int | None, expected: int | None) -> None:
        limit = _LARGEST.get(name, largest_model())
        if size is not None and size > limit:
            raise ModelError(
                f"{self.ref}: {name} has {size} bytes, more than the limit of {limit}",
                hint="the file was not downloaded; cascadezoo does not write such a file",
                code="model-file-too-large",
                name=name,
                size=size,
            )
        edited = name == CARD
        if size is not None and expected is not None and size != expected and not edited:
            raise ModelError(
                f"{self.ref}: {name} has {size} bytes on the Hub, not the {expected} of {CONFIG}",
                hint="the file was not downloaded; use another revision, or report it to its "
                "publisher",
                code="model-file-size",
                name=name,
                size=size,
            )

    def not_cached(self, what: str) -> ModelReferenceError:
        return ModelReferenceError(
            f"{what} is not cached, and offline mode sends no request",
            hint=f"run cascadezoo pull {self.ref} without --offline and HF_HUB_OFFLINE",
            code="reference-offline",
            name=str(self.ref),
        )
