"""Snapshots in the Hub's cache: model folders whose files are links into the blobs of their repo.

```
models--org--name/snapshots/COMMIT/config.json -> ../../blobs/SHA
models--org--name/blobs/SHA                      a file, or a link to the store that all repos
blobs/AB/SHA256                                  of the cache share
```
A folder of that shape elsewhere is an ordinary folder: its links are not followed.
"""

from __future__ import annotations

import os
from pathlib import Path

from cascadezoo.util.limits import is_commit

__all__ = ["hub_cache", "is_cache_link", "is_snapshot"]


def hub_cache() -> Path:
    """The cache folder of the Hub's client: ``HF_HUB_CACHE``, or ``HF_HOME/hub``."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(name):
            return _expanded(os.environ[name])
    if os.environ.get("HF_HOME"):
        return _expanded(os.environ["HF_HOME"]) / "hub"
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return _expanded(base) / "huggingface" / "hub"


def is_snapshot(folder: Path) -> bool:
    """Whether a folder is a snapshot in the Hub's cache, and really lies there."""
    repo = folder.parent.parent
    if folder.parent.name != "snapshots" or not is_commit(folder.name):
        return False
    if not repo.name.startswith("models--"):
        return False
    place = Path(os.path.realpath(hub_cache()), repo.name, "snapshots", folder.name)
    return os.path.realpath(folder) == str(place)


def is_cache_link(folder: Path, path: Path) -> bool:
    """Whether a link in a snapshot ends in the blobs of its repo, as the Hub's client makes it."""
    repo = folder.parent.parent
    blobs = repo / "blobs"
    if not is_snapshot(folder) or blobs.is_symlink():
        return False
    target = Path(os.path.realpath(path))
    shared = Path(os.path.realpath(repo.parent)) / "blobs"
    return target.parent == Path(os.path.realpath(blobs)) or target.parent.parent == shared


def _expanded(text: str) -> Path:
    return Path(os.path.expandvars(text)).expanduser()
