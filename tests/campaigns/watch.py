"""Notices every file that a case opens, by Python's audit hook and, for other code, by inotify."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

__all__ = ["ALLOWED_SYSTEM", "Canary", "Watch"]

ALLOWED_SYSTEM = (
    "/dev/null",
    "/dev/urandom",
    "/dev/random",
    "/proc",
    "/sys",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/resolv.conf",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/ssl",
    "/etc/ld.so.cache",
    "/usr/share",
    "/usr/lib",
    "/lib",
)
_PATH_EVENTS = {
    "open": (0,),
    "os.listdir": (0,),
    "os.scandir": (0,),
    "os.rename": (0, 1),
    "os.remove": (0,),
    "os.mkdir": (0,),
    "os.rmdir": (0,),
    "os.truncate": (0,),
    "os.chmod": (0,),
    "os.utime": (0,),
    "os.link": (0, 1),
    "os.symlink": (1,),
}
_STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn")
_COMPILERS = ("g++", "c++", "clang++")
"""Programs that torch asks for their version before it compiles."""
_CHANGES = frozenset(_PATH_EVENTS) - {"open", "os.listdir", "os.scandir"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_IN_OPEN, _IN_ACCESS, _IN_MODIFY, _IN_CREATE = 0x20, 0x1, 0x2, 0x100
_IN_NONBLOCK = os.O_NONBLOCK


class Watch:
    """An audit hook of this process that reports what lies outside of the allowed folders.

    Python cannot take an audit hook away again, so that a watch is for processes that end soon.

    Args:
        report: is called with a line for each path that may not be touched, once for each.
        read: folders and files that may be read.
        write: folders that may be written.
        never: folders inside of those that may be neither.
    """

    def __init__(
        self,
        report: Callable[[str], None],
        *,
        read: Iterable[str | Path],
        write: Iterable[str | Path],
        never: Iterable[str | Path] = (),
    ) -> None:
        self.report = report
        self.write = tuple(os.path.realpath(p) for p in write)
        self.read = (*(os.path.realpath(p) for p in read), *ALLOWED_SYSTEM, *self.write)
        self.never = tuple(os.path.realpath(p) for p in never)
        self.active = False
        self.events: list[Callable[[str, tuple[Any, ...]], None]] = []
        self._seen: set[str] = set()
        self._inside = threading.local()

    def install(self) -> None:
        """Add the hook; it reports while ``active`` is set."""
        sys.addaudithook(self._hook)

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.active or getattr(self._inside, "now", False):
            return
        self._inside.now = True
        try:
            for listener in self.events:
                listener(event, args)
            places = _PATH_EVENTS.get(event)
            if places is not None:
                for place in places:
                    self._look(event, args, args[place])
            elif event == "socket.connect":
                address = args[1]
                host = address[0] if isinstance(address, tuple) else address
                if host not in ("127.0.0.1", "::1", "localhost"):
                    self._tell(f"connects to {host!r}")
            elif event in _STARTS and args[0] not in _COMPILERS:
                self._tell(f"runs {args[0]!r}")
        finally:
            self._inside.now = False

    def _look(self, event: str, args: tuple[Any, ...], path: Any) -> None:
        if isinstance(path, int):
            return
        try:
            name = os.fsdecode(path if path is not None else ".")
            place = os.path.realpath(name)
            if event == "os.remove" or event in ("os.rename", "os.symlink", "os.link"):
                place = f"{os.path.realpath(Path(name).parent)}/x"
        except (TypeError, ValueError):
            return  # what is no path cannot be opened either
        if event == "os.listdir" and name in sys.path:
            return  # an import lists a folder that has changed anew
        changes = event in _CHANGES
        if event == "open" and place != "/dev/null":
            flags = args[2] if isinstance(args[2], int) else 0
            changes = bool(flags & _WRITES)
        allowed = self.write if changes else self.read
        if _within(place, self.never) or not _within(place, allowed):
            self._tell(f"{event}{' for writing' if changes else ''}: {name}")

    def _tell(self, line: str) -> None:
        if line not in self._seen:
            self._seen.add(line)
            self.report(line)


def _within(path: str, folders: Iterable[str]) -> bool:
    return any(path == f or path.startswith(f.rstrip("/") + "/") for f in folders)


class Canary:
    """A folder of which the kernel reports every opened file, whatever opened it.

    Libraries in other languages than Python open files without an audit event.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._descriptor = -1
        if not sys.platform.startswith("linux"):
            return
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(_IN_NONBLOCK | os.O_CLOEXEC)
        mask = _IN_OPEN | _IN_ACCESS | _IN_MODIFY | _IN_CREATE
        for place in (folder, *(p for p in folder.rglob("*") if p.is_dir() and not p.is_symlink())):
            libc.inotify_add_watch(self._descriptor, os.fsencode(place), mask)

    def opened(self) -> list[str]:
        """The names of files opened since the last call; empty without inotify."""
        if self._descriptor < 0:
            return []
        names: list[str] = []
        try:
            while data := os.read(self._descriptor, 1 << 16):
                at = 0
                while at < len(data):
                    size = int.from_bytes(data[at + 12 : at + 16], sys.byteorder)
                    name = data[at + 16 : at + 16 + size].rstrip(b"\0")
                    if name:  # else the folder was listed, as by a search through the disk
                        names.append(os.fsdecode(name))
                    at += 16 + size
        except BlockingIOError:
            pass
        return sorted(set(names))
