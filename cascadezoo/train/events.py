"""events.jsonl: the events of a training, one JSON object per line."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["EventLog", "read_events"]


class EventLog:
    """Appends events to a file.

    Args:
        path: the file, created if missing; None discards the events.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._file = None if path is None else path.open("a", encoding="utf-8")

    def write(self, event: str, **fields: Any) -> None:
        """Append one event with the time in seconds since 1970."""
        if self._file is not None:
            row = {"event": event, "time": round(time.time(), 3), **fields}
            self._file.write(json.dumps(row, ensure_ascii=False) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def rewind(self, step: int) -> None:
        """Remove the events after a step of the whole training, before those steps are repeated.

        Keeps events without a step, such as the choice of a compilation.
        """
        if self.path is None:
            return
        kept = [row for row in read_events(self.path) if row.get("step", -1) <= step]
        self.close()
        temporary = self.path.with_suffix(".tmp")
        with temporary.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in kept)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)
        self._file = self.path.open("a", encoding="utf-8")


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """Read the events of a file. Skips a line that a killed process left unfinished."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(row, dict):
                yield row
