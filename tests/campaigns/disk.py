"""The campaign ``disk``: the disk is full at some byte or file of a command, then it has room."""

from __future__ import annotations

import ctypes
import os
import resource
from pathlib import Path

from campaigns.engine import Campaign
from campaigns.trial import Trial, tail
from campaigns.writers import WRITERS, check_model, left_over, prepare_run

__all__ = ["Disk"]

_NEW_NAMESPACE = 0x20000
_PRIVATE = 0x44000
_REMOUNT = 0x20
_ROOM = 256 << 20
_PAGE = 4096


class Disk(Campaign):
    """A full disk is an error that says so; what was there stays, and with room all goes on.

    The disk is a file system in memory of the case's own. Where none can be mounted, files may not
    grow over a size, which the kernel reports by another error.
    """

    name = "disk"
    seconds = 20.0
    cpu_seconds = 30.0

    def prepare(self, material: Path) -> None:
        prepare_run(material)

    def run(self, trial: Trial) -> None:
        random = trial.random
        writer = WRITERS[trial.index % len(WRITERS)]
        place = trial.work / "disk"
        place.mkdir()
        disk = _Disk(place)
        os.chdir(place)
        writer.before(trial.material)
        if disk.mounted and random.random() < 0.25:
            files = random.randrange(24)
            title = f"room for {files} files"
            disk.limit(files=files)
        else:
            pages = min(random.randrange(160), random.randrange(160))
            title = f"room for {pages * _PAGE // 1024} KiB"
            disk.limit(room=pages * _PAGE)
        trial.say(f"{writer.name}: {title}")
        first = trial.command(*writer.args)
        if not first.ok and writer.had_model:
            # with room elsewhere: a picture of the model that was there
            shown = f"./{writer.model}"
            drawn = trial.command("sample", shown, "-n", 1, "-o", trial.home / "1.png", "--quiet")
            cause = f"{writer.name} on a full disk spoils the model that was there"
            trial.require(drawn.ok, cause, tail(drawn.text))
        disk.free()
        again = trial.command(*writer.args)
        if not again.ok:
            cause = f"{writer.name} after a full disk ends with {again.code}"
            trial.require(False, cause, tail(again.text))
            return
        check_model(trial, writer, "after a full disk")
        rest = left_over(Path())
        trial.require(not rest, f"{writer.name} after a full disk leaves {', '.join(rest)}")


class _Disk:
    """A mounted file system, or a limit on the size of files in its place."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.mounted = os.geteuid() == 0 and self._libc.unshare(_NEW_NAMESPACE) == 0
        if self.mounted:
            self._libc.mount(b"none", b"/", None, _PRIVATE, None)
            self.mounted = self._mount(0, f"size={_ROOM}")

    def limit(self, *, room: int = 0, files: int | None = None) -> None:
        """Leave so many bytes, or so many files."""
        if not self.mounted:
            resource.setrlimit(resource.RLIMIT_FSIZE, (max(room, 1), -1))
            return
        state = os.statvfs(self.place)
        if files is not None:
            inodes = state.f_files - state.f_ffree + files
            self._mount(_REMOUNT, f"size={_ROOM},nr_inodes={max(inodes, 2)}")
            return
        used = (state.f_blocks - state.f_bfree) * state.f_frsize
        self._mount(_REMOUNT, f"size={max(used + room, _PAGE)}")

    def free(self) -> None:
        """Make room again."""
        if self.mounted:
            self._mount(_REMOUNT, f"size={_ROOM},nr_inodes=100000")
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))

    def _mount(self, flags: int, options: str) -> bool:
        target = os.fsencode(self.place)
        return self._libc.mount(b"tmpfs", target, b"tmpfs", flags, options.encode()) == 0
