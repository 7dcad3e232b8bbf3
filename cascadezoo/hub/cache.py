"""The Hub's cache on this machine, as huggingface_hub lays it out and documents it.

```
models--org--name/refs/main              the commit that a branch or tag led to
models--org--name/blobs/SHA              a file under the sha that the Hub knows it by: sha256 of
                                         large files, git's sha1 of small ones
models--org--name/snapshots/COMMIT/...   the files of a commit, as links into blobs
```
Read here without the client, so that what is there already costs neither its import nor a request.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from cascadezoo.model_folder.layout import is_cache_link
from cascadezoo.util.files import sha256_of
from cascadezoo.util.limits import is_commit, is_sha256

__all__ = ["CachedRepo", "hub_cache", "is_offline"]

_TRUE = frozenset({"1", "ON", "YES", "TRUE"})


def hub_cache() -> Path:
    """Where the Hub's client keeps what it fetched: ``HF_HUB_CACHE``, or ``HF_HOME/hub``."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(name):
            return _expanded(os.environ[name])
    if os.environ.get("HF_HOME"):
        return _expanded(os.environ["HF_HOME"]) / "hub"
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return _expanded(base) / "huggingface" / "hub"


def is_offline() -> bool:
    """Whether ``HF_HUB_OFFLINE`` is set."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in _TRUE


@dataclass(frozen=True, slots=True)
class CachedRepo:
    """A model repo in the cache.

    Args:
        folder: ``models--org--name``; need not be there.
    """

    folder: Path

    @classmethod
    def of(cls, repo_id: str) -> CachedRepo:
        """The repo's place in the cache."""
        return cls(hub_cache().absolute() / f"models--{repo_id.replace('/', '--')}")

    def snapshot(self, commit: str) -> Path:
        """The folder of a commit's files; need not be there."""
        return self.folder / "snapshots" / commit

    def commit(self, revision: str) -> str | None:
        """The commit that a branch or tag led to when it was last asked for."""
        try:
            text = (self.folder / "refs" / revision).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            return None
        return text if is_commit(text) else None

    def remember(self, revision: str, commit: str) -> None:
        """Write down what a branch or tag leads to, for when there is no network."""
        path = self.folder / "refs" / revision
        if self.commit(revision) == commit:
            return
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        # Where the cache cannot be written, the Hub is asked each time; nothing else is lost.
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(commit, encoding="ascii")
            temporary.replace(path)

    def fault(self, commit: str, name: str) -> str | None:
        """What is wrong with a cached file, held against the sha that the Hub knows it by.

        None also where the cache has no links, so that the sha is not known.
        """
        path = self.snapshot(commit) / name
        if not path.is_symlink():
            return None
        if not is_cache_link(self.snapshot(commit), path):
            return f"{name} is a link that leads out of the Hub's cache"
        sha = path.readlink().name
        if is_sha256(sha):
            sound = sha256_of(path) == sha
        elif is_commit(sha):  # git's sha1, as commits have
            sound = _git_sha(path) == sha
        else:
            return None
        return None if sound else f"{name} is not what the Hub has: its sha differs"

    def evict(self, commit: str, name: str) -> None:
        """Throw a file away: the link and the blob that it leads to, and nothing outside."""
        path = self.snapshot(commit) / name
        if path.is_symlink():
            blob = Path(os.path.normpath(path.parent / path.readlink()))
            blobs = self.folder / "blobs"
            if not blobs.is_symlink() and os.path.realpath(blob.parent) == os.path.realpath(blobs):
                blob.unlink(missing_ok=True)
        path.unlink(missing_ok=True)


def _expanded(text: str) -> Path:
    return Path(os.path.expandvars(text)).expanduser()


def _git_sha(path: Path) -> str:
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
