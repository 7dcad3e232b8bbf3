"""Fetching from the Hub: what is handed out is what the repo's config.json says, to the byte.

The real client downloads into its own cache, where other programs find the files too. It neither
compares what arrived with its sha256 nor forgets what arrived damaged, so both are done here.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from cascadezoo.errors import (
    HubNotFoundError,
    HubUnavailableError,
    InputError,
    ModelError,
    ModelReferenceError,
)
from cascadezoo.hub.cache import CachedRepo, is_offline
from cascadezoo.hub.refs import HubRef
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
from cascadezoo.util.files import sha256_of
from cascadezoo.util.limits import LARGEST_CARD, LARGEST_JSON, LARGEST_METRICS, LARGEST_SAMPLES
from cascadezoo.util.retry import retry

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
"""Seconds before the Hub is asked again; the client itself waits longer where it may."""
_LONGEST_WAIT = 30.0

_log = logging.getLogger("cascadezoo.hub")


def largest_model() -> int:
    """How many bytes a model may have: ``CASCADEZOO_MAX_BYTES``, or 50 GiB.

    Raises:
        InputError: the variable holds no whole number.
    """
    text = os.environ.get(LIMIT_VARIABLE, "")
    if not text:
        return _LARGEST_MODEL
    if not text.isdecimal() or not text.isascii() or len(text) > 30:
        raise InputError(
            f"{LIMIT_VARIABLE}={text!r} is not a number of bytes",
            hint=f"unset {LIMIT_VARIABLE}, or set it to a whole number such as {_LARGEST_MODEL}",
            code="input-limit-form",
            name=LIMIT_VARIABLE,
        )
    return int(text)


def pull_hub(
    ref: HubRef,
    *,
    offline: bool | None = None,
    records: Mapping[str, FileRecord] | None = None,
) -> Path:
    """Bring a model from the Hub into the Hub's cache, and check every file of it.

    A branch or tag is resolved once, by one request; all else is asked for by its commit, and only
    where it is not cached. Nothing is fetched but config.json and the files that it lists.

    Args:
        ref: the repo and its revision.
        offline: send no request; None does so where ``HF_HUB_OFFLINE`` is set.
        records: what the files must be besides, as a zoo lists them.

    Returns:
        The snapshot folder. It may hold other files of the repo, which were not looked at.

    Raises:
        HubError: the repo is not there, not allowed, or cannot be reached, and is not cached.
        ModelError: it is no model, is too large, or arrives damaged twice.
    """
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
        # First of all files, and always through the client: requests for it count as downloads.
        self.make_sound(CONFIG, None, self.config_fault)
        config = read_config(self.folder)
        self.compare(config)
        self.limit(config)
        for name, record in config.files.items():
            self.make_sound(name, record.size, partial(self.fault, name, config))
        if self.ref.revision != self.commit:
            self.repo.remember(self.ref.revision or _MAIN, self.commit)
        return self.folder

    def resolve(self) -> str:
        """The commit; by one request at most, by none where it is given or there is no network."""
        revision = self.ref.revision or _MAIN
        if self.ref.pinned:
            return revision
        cached = self.repo.commit(revision)
        if self.offline:
            if cached is None:
                raise self.not_cached(f"{self.ref} was not pulled before")
            return cached
        try:
            commit, size = retry(lambda: self.ask(CONFIG, revision), _WAITS, longest=_LONGEST_WAIT)
        except HubUnavailableError as error:
            if cached is None or not (self.repo.snapshot(cached) / CONFIG).exists():
                raise
            _log.warning("%s; taking the copy that was pulled before, %s", error.what, cached)
            return cached
        self.check_size(CONFIG, size, None)
        return commit

    def ask(self, name: str, revision: str) -> tuple[str, int | None]:
        """The commit that a revision leads to, and the size of a file in it; one request."""
        from cascadezoo.hub.client import hub_api, translated

        with translated(f"{name} of {self.ref}"):
            from huggingface_hub import hf_hub_url

            api = hub_api()
            url = hf_hub_url(self.ref.repo_id, name, revision=revision, endpoint=api.endpoint)
            found = api.get_hf_file_metadata(url=url)
        commit = found.commit_hash or ""
        if not HubRef(self.ref.repo_id, commit).pinned:
            raise HubUnavailableError(
                f"what answers for {self.ref} names no commit, so it is no Hub",
                hint="look at HF_ENDPOINT, at proxies, and at the network's login page",
                code="hub-unavailable-no-hub",
            )
        return commit, found.size

    # --- one file

    def make_sound(self, name: str, size: int | None, fault: Callable[[], str | None]) -> None:
        """Have a file in the cache that is what it must be; a bad one is fetched once more."""
        for last in (False, True):
            if not self.fetch(name, size):
                return
            found = fault()
            if found is None:
                return
            where = f"{self.ref} (commit {self.commit})"
            if self.offline:
                raise ModelError(
                    f"the cached copy of {where} is damaged: {found}",
                    hint="pull it again with the network: without --offline and HF_HUB_OFFLINE",
                    code="model-cache-damaged",
                    name=name,
                )
            self.evict(name, found)
            if last:
                raise ModelError(
                    f"{where}: {found}, also after it was fetched again",
                    hint="it was not kept. Try again later, or another revision; where it stays, "
                    "what was published is damaged: tell who published it",
                    code="model-remote-damaged",
                    name=name,
                )

    def fetch(self, name: str, size: int | None) -> bool:
        """Have a file in the cache; False for a card that the repo does not have."""
        if (self.folder / name).exists():
            return True
        if self.offline:
            if name == CARD:
                return False
            raise self.not_cached(f"{name} of {self.ref} was not pulled before")
        try:
            retry(lambda: self.download(name, size), _WAITS, longest=_LONGEST_WAIT)
        except HubNotFoundError as error:
            if name == CARD:
                return False
            if name == CONFIG:
                raise
            raise ModelError(
                f"{self.ref} (commit {self.commit}) is not whole: its {CONFIG} lists {name}, "
                "which is not in the repo",
                hint="try another revision, or tell who published it",
                code="model-remote-incomplete",
                name=name,
            ) from error
        return True

    def download(self, name: str, size: int | None) -> None:
        from cascadezoo.hub.client import hub_api, translated

        self.check_size(name, self.ask(name, self.commit)[1], size)
        with translated(f"{name} of {self.ref}"):
            hub_api().hf_hub_download(
                self.ref.repo_id,
                name,
                revision=self.commit,
                cache_dir=self.repo.folder.parent,
            )

    def evict(self, name: str, fault: str) -> None:
        try:
            self.repo.evict(self.commit, name)
        except OSError as error:
            raise ModelError(
                f"{self.folder}: {fault}, and it cannot be removed: {error.strerror}",
                hint="remove it yourself, or set HF_HUB_CACHE to a folder that you may write to",
                code="model-cache-not-removable",
                path=self.folder,
            ) from error

    def config_fault(self) -> str | None:
        record = (self.records or {}).get(CONFIG)
        if record is not None and sha256_of(self.folder / CONFIG) != record.sha256:
            return f"{CONFIG} is not the one that the zoo lists: its sha256 differs"
        return self.repo.fault(self.commit, CONFIG)

    def fault(self, name: str, config: ModelConfig) -> str | None:
        found = file_faults(self.folder, config, [name], trust_verified=True).get(name)
        if found is not None and name == CARD:
            # People edit the card on the Hub: then it is what the Hub says, not config.json.
            return self.repo.fault(self.commit, CARD)
        return found

    # --- limits

    def compare(self, config: ModelConfig) -> None:
        """Hold config.json against what a zoo says of the files."""
        if self.records is None:
            return
        listed = {n: r for n, r in self.records.items() if n not in (CONFIG, CARD)}
        told = {n: r for n, r in config.files.items() if n != CARD}
        changed = sorted(n for n in {*listed, *told} if listed.get(n) != told.get(n))
        if changed:
            raise ModelError(
                f"{self.ref} is not the model that the zoo lists: {', '.join(changed)} differ",
                hint="cascadezoo zoo verify shows what is wrong; tell who keeps that zoo",
                code="model-not-of-zoo",
                names=tuple(changed),
            )

    def limit(self, config: ModelConfig) -> None:
        """Refuse what is too large before any of it is fetched."""
        for name, record in config.files.items():
            self.check_size(name, record.size, None)
        total = sum(record.size for record in config.files.values())
        if total > largest_model():
            raise ModelError(
                f"{self.ref} has {total} bytes, more than the {largest_model()} that are allowed",
                hint=f"{LIMIT_VARIABLE}={total} cascadezoo pull {self.ref} allows it",
                code="model-too-large",
                size=total,
            )

    def check_size(self, name: str, size: int | None, expected: int | None) -> None:
        most = _LARGEST.get(name, largest_model())
        if size is not None and size > most:
            raise ModelError(
                f"{self.ref}: {name} has {size} bytes, more than the {most} that one may have",
                hint="it was not fetched; this is no model that cascadezoo wrote",
                code="model-file-too-large",
                name=name,
                size=size,
            )
        edited = name == CARD
        if size is not None and expected is not None and size != expected and not edited:
            raise ModelError(
                f"{self.ref}: {name} has {size} bytes on the Hub, not the {expected} of {CONFIG}",
                hint="it was not fetched; try another revision, or tell who published it",
                code="model-file-size",
                name=name,
                size=size,
            )

    def not_cached(self, what: str) -> ModelReferenceError:
        return ModelReferenceError(
            f"{what}, and no request is sent offline",
            hint=f"cascadezoo pull {self.ref}, without --offline and HF_HUB_OFFLINE, fetches it",
            code="reference-offline",
            name=str(self.ref),
        )
