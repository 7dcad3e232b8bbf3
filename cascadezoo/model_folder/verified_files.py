"""Remembers which files were found to be what their sha256 says, so that none is hashed twice.

Hashing is slower than reading: loading a model of 200 MB again would spend most of its time on
it. A file counts as verified while device, inode, size, mtime and ctime are what they were when it
was hashed, as in git's index. Whatever writes to a file changes its ctime, which cannot be set.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

from cascadezoo.util.files import cache_folder

__all__ = ["Verified"]

# A file that changed within the clock's grain of being hashed could change again unseen.
SETTLED = 2.0

# What was hashed too soon to be kept on disk is believed, in this process, for as long as it takes
# to load it, where it is older than the grain of this machine's own disks.
_GRAIN = 0.05
_MOMENT = 2 * SETTLED
_recent: dict[tuple[str, str], tuple[list[str | int], float]] = {}


class Verified:
    """What is known of the files of one model folder.

    Args:
        folder: the model folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        key = hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()[:32]
        self._path = cache_folder() / "verified" / f"{key}.json"
        self._known = self._read()

    def holds(self, name: str, sha256: str) -> bool:
        """Whether the file was found to have that sha256 and was not touched since."""
        row = [sha256, *_stamp(self.folder / name)]
        if self._known.get(name) == row:
            return True
        recent, when = _recent.get((str(self._path), name), ([], 0.0))
        return recent == row and time.monotonic() - when < _MOMENT

    def remember(self, digests: Mapping[str, str]) -> None:
        """Keep what was found, for files that have not changed just now."""
        known = dict(self._known)
        now = time.time_ns()
        for name, sha256 in digests.items():
            stamp = _stamp(self.folder / name)
            age = (now - max(stamp[3:])) / 1e9
            if age > SETTLED:
                known[name] = [sha256, *stamp]
            elif age > _GRAIN:
                _recent[str(self._path), name] = ([sha256, *stamp], time.monotonic())
        if known == self._known:
            return
        self._known = known
        temporary = self._path.with_suffix(f".{os.getpid()}.tmp")
        # Where the cache cannot be written, files are hashed each time; nothing else is lost.
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(known))
            temporary.replace(self._path)

    def _read(self) -> dict[str, list[str | int]]:
        try:
            data = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        return data if isinstance(data, dict) else {}


def _stamp(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]
