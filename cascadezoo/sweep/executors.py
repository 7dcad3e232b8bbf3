"""The interface of executors, and the one for this machine. Does not import torch."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from types import TracebackType
from typing import Protocol

from cascadezoo.sweep.cell_process import CellProcess, Job, Outcome
from cascadezoo.sweep.spec import ResourceSpec

__all__ = ["Executor", "LocalExecutor", "Notify", "Stop", "cores"]

PAUSE = 0.1

Stop = Callable[[], str | None]
Notify = Callable[[str, str], None]


class Executor(AbstractContextManager["Executor"], Protocol):
    """Runs cells."""

    def run(self, jobs: Sequence[Job], stop: Stop, notify: Notify) -> Generator[Outcome]:
        """Run builds and yield the outcome of each, in the order in which they end.

        Args:
            jobs: the builds.
            stop: returns the name of the signal that asks to stop, or None. After a signal,
                running builds write a checkpoint and exit, and no further build starts.
            notify: called with a cell's name and ``started``, or with ``waiting`` if another
                process is building the cell already.
        """


class LocalExecutor(Executor):
    """Runs cells as processes on this machine.

    Args:
        jobs: number of parallel builds.
        resources: the resources of each build.
    """

    def __init__(self, jobs: int, resources: ResourceSpec) -> None:
        self.jobs = jobs
        self.threads = resources.cpus
        if self.threads is None and "OMP_NUM_THREADS" not in os.environ:
            self.threads = max(1, cores() // jobs)
        # Parallel cells get separate devices if the machine has several.
        self.devices = _gpus() if resources.gpus and jobs > 1 else []
        self.share = max(1, math.ceil(resources.gpus))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Does nothing: :meth:`run` ends its processes."""

    def run(self, jobs: Sequence[Job], stop: Stop, notify: Notify) -> Generator[Outcome]:
        """See :class:`Executor`."""
        queue = deque(jobs)
        running: dict[int, CellProcess] = {}
        notified: set[tuple[str, str]] = set()
        try:
            while running or (queue and not stop()):
                for slot in range(self.jobs):
                    if slot not in running and queue and not stop():
                        running[slot] = CellProcess(self.placed(queue.popleft(), slot))
                for slot, process in list(running.items()):
                    if stop():
                        process.stop()
                    outcome = process.poll()
                    name = process.job.name
                    states = (("waiting", process.waiting), ("started", process.started))
                    for state, holds in states:
                        if holds and (name, state) not in notified:
                            notified.add((name, state))
                            notify(name, state)
                    if outcome is not None:
                        del running[slot]
                        yield outcome
                if running:
                    time.sleep(PAUSE)
        finally:
            for process in running.values():
                process.kill()

    def placed(self, job: Job, slot: int) -> Job:
        """The job with the threads and the devices of a slot."""
        job = replace(job, threads=self.threads)
        if len(self.devices) < 2:
            return job
        first = slot * self.share
        mine = [self.devices[(first + i) % len(self.devices)] for i in range(self.share)]
        return replace(job, env={**job.env, "CUDA_VISIBLE_DEVICES": ",".join(mine)})


def cores() -> int:
    """The CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _gpus() -> list[str]:
    """The names of this machine's CUDA devices, without starting CUDA."""
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    if shown is not None:
        return [name.strip() for name in shown.split(",") if name.strip()]
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    done = subprocess.run(  # noqa: S603
        [tool, "-L"], capture_output=True, text=True, check=False, timeout=60
    )
    rows = [line for line in done.stdout.splitlines() if line.startswith("GPU ")]
    return [str(index) for index in range(len(rows))] if done.returncode == 0 else []
