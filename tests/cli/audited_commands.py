"""Runs commands under an audit hook and prints what they opened; see test_cli_data_paths.py.

Reads rows ``{"cwd": ..., "args": [...]}`` as JSON from stdin and prints one JSON row for each. A hook
cannot be removed, so this is a program of its own.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from click.testing import CliRunner

from cascadezoo.cli import errors, lazy
from cascadezoo.cli.main import main

PATHS = {
    "open": 1,
    "os.listdir": 1,
    "os.scandir": 1,
    "os.mkdir": 1,
    "os.rename": 2,
    "os.remove": 1,
    "os.link": 2,
    "os.symlink": 2,
}
LIMIT_SECONDS = 100


class Audit:
    """Collects the paths and addresses of audit events while a command runs."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str]] = []
        self.active = False

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.active:
            return
        if event.startswith("socket.") and event in ("socket.connect", "socket.getaddrinfo"):
            self.rows.append((event, repr(args[-1] if event == "socket.connect" else args[0])))
        for path in args[: PATHS.get(event, 0)]:
            if isinstance(path, (str, bytes, os.PathLike)):
                self.rows.append((event, os.fsdecode(path)))


def too_long(_signal: int, _frame: FrameType | None) -> None:
    raise TimeoutError("the command hangs")


def run(audit: Audit, cwd: str, args: list[str]) -> dict[str, Any]:
    """Run one command; its exit code, error and opened paths."""
    reported: list[BaseException] = []

    def report(error: BaseException, *, as_json: bool) -> int:
        reported.append(error)
        return errors.report(error, as_json=as_json)

    lazy.report = report
    Path(cwd).mkdir(exist_ok=True)
    os.chdir(cwd)
    audit.rows.clear()
    signal.alarm(LIMIT_SECONDS)
    audit.active = True
    try:
        result = CliRunner().invoke(main, args, prog_name="cascadezoo")
    finally:
        audit.active = False
        signal.alarm(0)
    error = reported[-1] if reported else result.exception
    return {
        "exit_code": result.exit_code,
        "error": type(error).__name__,
        "code": getattr(error, "code", None),
        "output": result.output,
        "opened": sorted(set(audit.rows)),
    }


if __name__ == "__main__":
    signal.signal(signal.SIGALRM, too_long)
    recorder = Audit()
    sys.addaudithook(recorder)
    for line in sys.stdin:
        row = json.loads(line)
        print(json.dumps(run(recorder, row["cwd"], row["args"])), flush=True)
