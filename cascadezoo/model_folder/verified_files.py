"""Files whose sha256 has been verified, so that no file is hashed twice.

Hashing is slower than reading: loading a model of 200 MB again would spend most of its time on
it. A file remains verified while its device, inode, size, mtime and ctime do not change, as in
git's index. Every write changes the ctime, which cannot be set.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

from cascadezoo.model_folder.files import stat_file
from cascadezoo.util.files import cache_folder, write_atomically

__all__ = ["VerifiedFiles"]

# A second change within the resolution of the file system's clock would leave the same ctime.
SETTLED = 2.0

# A file younger than that is not recorded on disk. This process still trusts it for the time that
# loading takes, if it is older than the clock resolution of local disks.
_RESOLUTION = 0.05
_RECENT_SECONDS = 2 * SETTLED
_recent: dict[tuple[str, str], tuple[list[str | int], float]] = {}


class VerifiedFiles:
    """The verified files of one model folder, recorded in the cache.

    Args:
        folder: the model folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        key = hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()[:32]
        self._path = cache_folder() / "verified" / f"{key}.json"
        self._rows = self._read()

    def matches(self, name: str, sha256: str) -> bool:
        """Whether the file was verified to have that sha256 and has not changed since."""
        row = [sha256, *self._stamp(name)]
        if self._rows.get(name) == row:
            return True
        recent, when = _recent.get((str(self._path), name), ([], 0.0))
        return recent == row and time.monotonic() - when < _RECENT_SECONDS

    def add(self, digests: Mapping[str, str]) -> None:
        """Record verified files, except those that changed a moment ago.

        Args:
            digests: sha256 by file name.
        """
        rows = dict(self._rows)
        now = time.time_ns()
        for name, sha256 in digests.items():
            stamp = self._stamp(name)
            age = (now - max(stamp[3:])) / 1e9
            if age > SETTLED:
                rows[name] = [sha256, *stamp]
            elif age > _RESOLUTION:
                _recent[str(self._path), name] = ([sha256, *stamp], time.monotonic())
        if rows == self._rows:
            return
        self._rows = rows
        # If the cache is not writable, files are hashed each time.
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path, json.dumps(rows).encode())

    def _read(self) -> dict[str, list[str | int]]:
        try:
            data = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        return data if isinstance(data, dict) else {}

    def _stamp(self, name: str) -> list[int]:
        stat = stat_file(self.folder, name)
        return [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
