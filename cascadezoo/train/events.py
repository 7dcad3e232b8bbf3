"""events.jsonl: the events of a training, one JSON object per line. Does not import torch."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from cascadezoo.errors import CascadezooError, RunFolderError
from cascadezoo.util.files import disk_full, write_atomically

__all__ = ["DAMAGED", "EventLog", "EventRows", "read_event_rows", "read_events"]

DAMAGED = "events-damaged"
"""The event that counts, as ``rows``, the damaged rows that a resumed training dropped."""

LONGEST = 1 << 20
"""Maximum bytes of a row. A damaged file may have no line ends."""

_STEPPED = ("phase", "log", "epoch", "figure")


class EventLog:
    """Appends events to a file.

    Args:
        path: the file, created if missing; None discards the events.

    Raises:
        DiskFullError: the disk is full.
        RunFolderError: the file cannot be written.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._file: IO[bytes] | None = None
        self._open()

    def write(self, event: str, **fields: Any) -> None:
        """Append one event with the time in seconds since 1970.

        Raises:
            DiskFullError: the disk is full; the file keeps its content.
            RunFolderError: the file cannot be written; it keeps its content.
        """
        row = {"event": event, "time": round(time.time(), 3), **fields}
        self._append(_line(row))

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def rewind(self, step: int) -> int:
        """Remove the events after a step of the whole training, before those steps are repeated.

        Keeps events without a step, such as the choice of a compilation. Drops damaged rows.

        Returns:
            The number of damaged rows.

        Raises:
            DiskFullError: the disk is full; the file keeps its content.
            RunFolderError: the file cannot be read or written.
        """
        if self.path is None:
            return 0
        log = read_event_rows(self.path)
        kept = [row for row in log.rows if row.get("step", -1) <= step]
        self.close()
        try:
            write_atomically(self.path, b"".join(_line(row) for row in kept))
        except OSError as error:
            raise _not_writable(self.path, error) from error
        self._open()
        return log.damaged

    def _open(self) -> None:
        if self.path is None:
            return
        try:
            # Without a buffer, a failed write leaves nothing that closing would write again.
            self._file = self.path.open("a+b", buffering=0)
            self._finish_line(self._file)
        except OSError as error:
            raise _not_writable(self.path, error) from error

    def _finish_line(self, file: IO[bytes]) -> None:
        """Remove the part of a line that a killed process left, which a new row would join."""
        size = file.seek(0, os.SEEK_END)
        start = file.seek(max(0, size - LONGEST))
        line = file.read().rpartition(b"\n")[2]
        if not line:
            return
        if _row(line) is None and (start == 0 or len(line) < size - start):
            file.truncate(size - len(line))
        else:
            self._append(b"\n")

    def _append(self, data: bytes) -> None:
        """Append all bytes or none."""
        if self._file is None or self.path is None:
            return
        size = os.fstat(self._file.fileno()).st_size
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(size)
            raise _not_writable(self.path, error) from error


@dataclass(frozen=True, slots=True)
class EventRows:
    """The content of an events.jsonl.

    Args:
        rows: the readable events.
        damaged: the number of lines that are damaged. The unfinished last line of a killed process
            does not count.
    """

    rows: list[dict[str, Any]]
    damaged: int

    @property
    def dropped(self) -> int:
        """The damaged rows, with those that resumed trainings have dropped from the file."""
        return self.damaged + sum(int(row["rows"]) for row in self.rows if row["event"] == DAMAGED)


def read_event_rows(path: Path, *, missing_ok: bool = True) -> EventRows:
    """Read the events of a file.

    A damaged row is skipped: it is no JSON object, or a known field has a wrong type.

    Args:
        path: the file.
        missing_ok: a missing file has no events.

    Raises:
        RunFolderError: the file cannot be read.
    """
    rows, damaged = [], 0
    try:
        for line in _lines(path):
            row = _row(line)
            if row is not None:
                rows.append(row)
            elif line.endswith(b"\n"):
                damaged += line.strip() != b""
    except OSError as error:
        if not (missing_ok and isinstance(error, FileNotFoundError)):
            raise RunFolderError(
                f"cannot read the events in {path}: {error.strerror or error}",
                hint="give the events.jsonl in the run folder of a build",
                code="run-folder-events-unreadable",
                path=path,
            ) from error
    return EventRows(rows, damaged)


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """The readable events of a file; see :func:`read_event_rows`."""
    yield from read_event_rows(path).rows


def _line(row: Mapping[str, Any]) -> bytes:
    return (json.dumps(row, ensure_ascii=False) + "\n").encode(errors="backslashreplace")


def _not_writable(path: Path, error: OSError) -> CascadezooError:
    full = disk_full(
        error, path, hint="free space on that disk, then run the same command again to resume"
    )
    return full or RunFolderError(
        f"cannot write the events to {path}: {error.strerror or error}",
        hint="make the run folder writable, then run the same command again to resume",
        code="run-folder-events-not-writable",
        path=path,
    )


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a file. A line that is too long is replaced by one that is no event."""
    with path.open("rb") as file:
        skip = False
        while line := file.readline(LONGEST):
            ends = line.endswith(b"\n")
            if not skip:
                yield line if ends or len(line) < LONGEST else b"?\n"
            skip = not ends


def _row(line: bytes) -> dict[str, Any] | None:
    """The event of a line; None if it is damaged."""
    try:
        row = json.loads(line.decode())
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and _is_sound(row) else None


def _is_sound(row: Mapping[str, Any]) -> bool:
    if not isinstance(row.get("event"), str):
        return False
    required = {DAMAGED: ("rows",)} | dict.fromkeys(_STEPPED, ("step",))
    if any(name not in row for name in required.get(row["event"], ())):
        return False
    return all(_FIELDS[name](value) for name, value in row.items() if name in _FIELDS)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53


def _is_number(value: object) -> bool:
    """A number whose squares and differences are finite."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isfinite(value) and abs(value) < 1e100


def _is_amount(value: object) -> bool:
    return _is_number(value) and value >= 0  # type: ignore[operator]


def _are_numbers(value: object) -> bool:
    return isinstance(value, dict) and all(_is_number(number) for number in value.values())


_FIELDS: Mapping[str, Callable[[object], bool]] = {
    "time": _is_number,
    "phase": _is_text,
    "phase_index": _is_count,
    "step": _is_count,
    "state": _is_text,
    "steps_per_epoch": lambda value: _is_count(value) and value != 0,
    "epoch": _is_amount,
    "steps": _is_count,
    "seconds": _is_amount,
    "whole": lambda value: isinstance(value, bool),
    "losses": _are_numbers,
    "lr": _are_numbers,
    "teacher_forcing": lambda value: value is None or _is_number(value),
    "images_per_second": _is_number,
    "figure": lambda value: isinstance(value, dict),
    "device_peak_bytes": _is_count,
    "process_peak_bytes": _is_count,
    "rows": _is_count,
}
"""The fields of the trainer's events, with the check of their values."""
