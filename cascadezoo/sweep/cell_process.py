"""One cell's build as a process of its own: started, looked after, stopped. Free of torch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

__all__ = ["CellProcess", "Job", "Outcome"]

AGAIN = 1.0
"""Seconds between two looks at a cell that somebody else is building."""

TAIL = 16384
LAST_LINES = 3
LONGEST = 2000


@dataclass(frozen=True, slots=True)
class Job:
    """A build to do; plain data, so that it can be sent to another machine.

    Args:
        name: of the cell.
        spec: its spec file.
        run: its run folder.
        log: where its standard error goes, after what is there.
        cwd: where relative paths of its spec start.
        device: as ``cascadezoo build`` takes it.
        threads: that it may compute with; None is what the environment says.
        env: what differs in its environment.
    """

    name: str
    spec: Path
    run: Path
    log: Path
    cwd: Path
    device: str = "auto"
    threads: int | None = None
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a build ended.

    Args:
        name: of the cell.
        state: ``stopped`` was stopped by a signal and goes on from its checkpoint.
        error: why it is not done.
        seconds: from its start.
    """

    name: str
    state: Literal["done", "failed", "stopped"]
    error: str | None = None
    seconds: float = 0.0


class CellProcess:
    """Builds one cell. A cell that somebody else is building is waited for.

    Args:
        job: the build.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.held = False
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = False
        self._began = time.monotonic()
        self._next = 0.0
        self._from = 0

    @property
    def started(self) -> bool:
        """Whether the build is at work."""
        return self._process is not None

    def poll(self) -> Outcome | None:
        """Start the build where it has not been, and see whether it has ended.

        Raises:
            OSError: it cannot be started.
        """
        if self._process is None:
            if self._stopping:
                return self._outcome("stopped", "stopped before it began")
            if time.monotonic() < self._next:
                return None
            if _at_work(self.job.run):
                self._wait()
                return None
            self._start()
            return None
        code = self._process.poll()
        if code is None:
            return None
        self._clean()
        found = self._judge(code)
        if found is None:
            self._process = None
            self._wait()
        return found

    def stop(self) -> None:
        """Tell the build to write a checkpoint and leave."""
        if not self._stopping and self._process is not None and self._process.poll() is None:
            self._process.terminate()
        self._stopping = True

    def kill(self) -> None:
        """End the build now."""
        if self._process is not None:
            self._clean()
            self._process.wait()

    def _start(self) -> None:
        job = self.job
        command = [sys.executable, "-m", "cascadezoo.sweep.watchdog", "build", str(job.spec)]
        command += ["-o", str(job.run), "--device", job.device, "--json"]
        env = {**os.environ, **job.env}
        if job.threads is not None:
            env |= {name: str(job.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("ab") as log:
            stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
            log.write(f"--- cascadezoo build, {stamp} UTC\n".encode())
            log.flush()
            self._from = log.tell()
            self._began = time.monotonic()
            self._process = subprocess.Popen(  # noqa: S603
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=log,
                cwd=job.cwd,
                env=env,
                start_new_session=True,  # a group of its own: the terminal's Ctrl-C is ours alone
            )

    def _wait(self) -> None:
        self.held = True
        self._next = time.monotonic() + AGAIN

    def _clean(self) -> None:
        """End what is left of the build's process group."""
        if self._process is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _judge(self, code: int) -> Outcome | None:
        """The outcome; None where somebody else has begun to build the cell meanwhile."""
        if code == 0:
            return self._outcome("done")
        lines = self._tail()
        told = _told(lines)
        case = "" if told is None else str(told.get("code")).partition("-")[0]
        if told is not None and case == "locked":
            return None
        if told is not None and case == "interrupted":
            return self._outcome("stopped", str(told.get("message")))
        if told is not None:
            hint = f" ({told['hint']})" if told.get("hint") else ""
            return self._outcome("failed", f"{told.get('message')}{hint}")
        if self._stopping:
            return self._outcome("stopped", "stopped before its first checkpoint")
        if code < 0:
            why = f"killed by {_signal_name(-code)}"
            if -code == signal.SIGKILL:
                why += ", as the kernel does where memory runs out"
        else:
            why = f"ended with exit code {code}"
        last = "; ".join(line.strip() for line in lines[-LAST_LINES:] if line.strip())
        return self._outcome("failed", f"{why}; its last lines: {last}" if last else why)

    def _outcome(
        self, state: Literal["done", "failed", "stopped"], error: str | None = None
    ) -> Outcome:
        seconds = time.monotonic() - self._began
        return Outcome(self.job.name, state, error and error[:LONGEST], seconds)

    def _tail(self) -> list[str]:
        with self.job.log.open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(self._from, log.tell() - TAIL))
            return log.read().decode(errors="replace").splitlines()


def _told(lines: list[str]) -> dict[str, object] | None:
    """The error that ``cascadezoo build --json`` wrote as its last words."""
    for line in reversed(lines):
        if line.startswith('{"error"'):
            with suppress(ValueError, KeyError):
                error = json.loads(line)["error"]
                return error if isinstance(error, dict) else None
    return None


def _at_work(run: Path) -> bool:
    """Whether another process is building into a run folder."""
    path = run / ".lock"
    if not path.is_file():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
