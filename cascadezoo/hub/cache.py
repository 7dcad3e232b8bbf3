"""The Hub's cache on this machine, in the documented layout of huggingface_hub.

```
models--org--name/refs/main              the commit of a branch or tag
models--org--name/blobs/SHA              a file, named by its sha on the Hub: sha256 of large
                                         files, git's sha1 of small ones
models--org--name/snapshots/COMMIT/...   the files of a commit, as links into blobs
```
This module reads it without the client, so cached files need neither its import nor a request.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cascadezoo.model_folder.files import file_sha256, open_file
from cascadezoo.model_folder.snapshots import hub_cache, is_cache_link
from cascadezoo.util.limits import is_commit, is_sha256

__all__ = ["CachedRepo", "git_blob_sha", "is_offline"]

_TRUE = frozenset({"1", "ON", "YES", "TRUE"})


def is_offline() -> bool:
    """Whether ``HF_HUB_OFFLINE`` is set."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in _TRUE


@dataclass(frozen=True, slots=True)
class CachedRepo:
    """A model repo in the cache.

    Args:
        folder: ``models--org--name``; it need not exist.
    """

    folder: Path

    @classmethod
    def of(cls, repo_id: str) -> CachedRepo:
        """The cache entry of a repo."""
        return cls(hub_cache().absolute() / f"models--{repo_id.replace('/', '--')}")

    def snapshot(self, commit: str) -> Path:
        """The folder of a commit's files; it need not exist."""
        return self.folder / "snapshots" / commit

    def commit(self, revision: str) -> str | None:
        """The commit of a branch or tag at its last request; None if it is not cached."""
        try:
            text = (self.folder / "refs" / revision).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            return None
        return text if is_commit(text) else None

    def remember(self, revision: str, commit: str) -> None:
        """Record the commit of a branch or tag for offline use."""
        path = self.folder / "refs" / revision
        if self.commit(revision) == commit:
            return
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        # If the cache is read-only, each pull asks the Hub again; nothing else is lost.
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(commit, encoding="ascii")
            temporary.replace(path)

    def fault(self, commit: str, name: str) -> str | None:
        """Compare a cached file with its sha on the Hub.

        Returns:
            The fault; None if the file is sound, or if the cache has no links and the sha is
            unknown.
        """
        path = self.snapshot(commit) / name
        if not path.is_symlink():
            return None
        if not is_cache_link(self.snapshot(commit), path):
            return f"{name} is a link that points outside the Hub's cache"
        sha = path.readlink().name
        if is_sha256(sha):
            sound = file_sha256(self.snapshot(commit), name) == sha
        elif is_commit(sha):  # git's sha1 has the form of a commit
            with open_file(self.snapshot(commit), name) as file:
                sound = git_blob_sha(file, os.fstat(file.fileno()).st_size) == sha
        else:
            return None
        return None if sound else f"the sha of {name} differs from the Hub's"

    def evict(self, commit: str, name: str) -> None:
        """Delete a cached file: the link and its blob, but nothing outside the cache."""
        path = self.snapshot(commit) / name
        if path.is_symlink():
            blob = Path(os.path.normpath(path.parent / path.readlink()))
            blobs = self.folder / "blobs"
            if not blobs.is_symlink() and os.path.realpath(blob.parent) == os.path.realpath(blobs):
                blob.unlink(missing_ok=True)
        path.unlink(missing_ok=True)

    def discard(self, blob: str) -> None:
        """Delete what arrived of a blob. The client before 2.0 would append to it."""
        if (is_commit(blob) or is_sha256(blob)) and not (self.folder / "blobs").is_symlink():
            (self.folder / "blobs" / f"{blob}.incomplete").unlink(missing_ok=True)


def git_blob_sha(file: BinaryIO, size: int) -> str:
    """The sha1 of the git blob with the content of an open file of ``size`` bytes."""
    digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()
