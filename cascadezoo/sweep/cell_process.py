"""Builds one cell in its own process: starts, polls and stops it. Does not import torch."""

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

LOCK_POLL_SECONDS = 1.0
"""Seconds between two checks of a cell that another process is building."""

TAIL = 16384
LAST_LINES = 3
LONGEST = 2000


@dataclass(frozen=True, slots=True)
class Job:
    """A build to run. Plain data, so that Ray can send it to another machine.

    Args:
        name: the cell's name.
        spec: its spec file.
        run: its run folder.
        log: the file to which its standard error is appended.
        cwd: the working directory; relative paths of its spec start there.
        device: as for ``cascadezoo build``.
        threads: number of CPU threads; None leaves it to the environment.
        env: changes of the environment variables.
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
        name: the cell's name.
        state: ``stopped`` if a signal stopped it; it resumes from its checkpoint.
        error: the reason why it is not done.
        seconds: time since its start.
    """

    name: str
    state: Literal["done", "failed", "stopped"]
    error: str | None = None
    seconds: float = 0.0


class CellProcess:
    """Builds one cell. Waits while another process builds the same cell.

    Args:
        job: the build.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.waiting = False
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = False
        self._began = time.monotonic()
        self._next_check = 0.0
        self._log_start = 0

    @property
    def started(self) -> bool:
        """Whether the build is running."""
        return self._process is not None

    def poll(self) -> Outcome | None:
        """Start the build if necessary, and return its outcome when it has ended.

        Raises:
            OSError: the build cannot be started.
        """
        if self._process is None:
            if self._stopping:
                return self._outcome("stopped", "stopped before it started")
            if time.monotonic() < self._next_check:
                return None
            if _is_locked(self.job.run):
                self._wait()
                return None
            self._start()
            return None
        code = self._process.poll()
        if code is None:
            return None
        self._clean()
        outcome = self._outcome_of(code)
        if outcome is None:
            self._process = None
            self._wait()
        return outcome

    def stop(self) -> None:
        """Ask the build to write a checkpoint and exit."""
        if not self._stopping and self._process is not None and self._process.poll() is None:
            self._process.terminate()
        self._stopping = True

    def kill(self) -> None:
        """Kill the build."""
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
            self._log_start = log.tell()
            self._began = time.monotonic()
            self._process = subprocess.Popen(  # noqa: S603
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=log,
                cwd=job.cwd,
                env=env,
                start_new_session=True,  # a process group of its own, which Ctrl-C does not reach
            )

    def _wait(self) -> None:
        self.waiting = True
        self._next_check = time.monotonic() + LOCK_POLL_SECONDS

    def _clean(self) -> None:
        """Kill the remaining processes of the build's process group."""
        if self._process is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _outcome_of(self, code: int) -> Outcome | None:
        """The outcome; None if another process has started to build the cell meanwhile."""
        if code == 0:
            return self._outcome("done")
        lines = self._tail()
        error = _reported_error(lines)
        if error is not None:
            case = str(error.get("code")).partition("-")[0]
            if case == "locked":
                return None
            if case == "interrupted":
                return self._outcome("stopped", str(error.get("message")))
            hint = f" ({error['hint']})" if error.get("hint") else ""
            return self._outcome("failed", f"{error.get('message')}{hint}")
        if self._stopping:
            return self._outcome("stopped", "stopped before its first checkpoint")
        if code < 0:
            reason = f"killed by {_signal_name(-code)}"
            if -code == signal.SIGKILL:
                reason += "; the kernel does this when memory runs out"
        else:
            reason = f"exit code {code}"
        last = "; ".join(line.strip() for line in lines[-LAST_LINES:] if line.strip())
        return self._outcome(
            "failed", f"{reason}; last lines of its log: {last}" if last else reason
        )

    def _outcome(
        self, state: Literal["done", "failed", "stopped"], error: str | None = None
    ) -> Outcome:
        seconds = time.monotonic() - self._began
        return Outcome(self.job.name, state, error and error[:LONGEST], seconds)

    def _tail(self) -> list[str]:
        with self.job.log.open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(self._log_start, log.tell() - TAIL))
            return log.read().decode(errors="replace").splitlines()


def _reported_error(lines: list[str]) -> dict[str, object] | None:
    """The error that ``cascadezoo build --json`` wrote last."""
    for line in reversed(lines):
        if line.startswith('{"error"'):
            with suppress(ValueError, KeyError):
                error = json.loads(line)["error"]
                return error if isinstance(error, dict) else None
    return None


def _is_locked(run: Path) -> bool:
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
