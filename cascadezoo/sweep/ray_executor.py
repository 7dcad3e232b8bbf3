"""Runs cells as Ray tasks on one or more machines. Imports ray on first use, and never torch."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import socket
import time
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cascadezoo.errors import InputError, ResourceError
from cascadezoo.sweep.cell_process import CellProcess, Job, Outcome
from cascadezoo.sweep.executors import Executor, Notify, Stop
from cascadezoo.sweep.spec import ResourceSpec

__all__ = ["RayExecutor"]

PAUSE = 0.2
CONNECT_SECONDS = 15.0
GIB = 2**30


class RayExecutor(Executor):
    """Runs cells on a Ray cluster whose machines share the sweep's folder.

    Args:
        jobs: number of parallel builds; None is as many as the resources allow.
        resources: the resources of each build.
        stop_file: a file in the shared folder; running cells stop when it exists.
        address: address of a running cluster; None uses ``RAY_ADDRESS``, or starts a cluster on
            this machine that ends with the sweep.
    """

    def __init__(
        self, jobs: int | None, resources: ResourceSpec, stop_file: Path, address: str | None = None
    ) -> None:
        self.jobs = jobs
        self.resources = resources
        self.stop_file = stop_file
        self.address = address

    def __enter__(self) -> Self:
        """Start or join the cluster.

        Raises:
            InputError: ray is not installed, or the cluster does not answer.
            ResourceError: no machine of the cluster has the resources of a cell.
        """
        if importlib.util.find_spec("ray") is None:
            raise InputError(
                "ray is not installed",
                hint="install it: pip install 'cascadezoo[ray]'",
                code="input-ray-missing",
            )
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # _build hides the devices from cells without GPUs, in the same way for all versions of ray.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        place = self.address or os.environ.get("RAY_ADDRESS")
        _require_answer(place)
        import ray

        options = {} if place else {"include_dashboard": False}
        try:
            ray.init(
                address=self.address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                **options,
            )
        except (ConnectionError, ValueError) as error:
            raise _no_answer(place, error) from error
        try:
            self.require_room(ray.nodes())
        except ResourceError:
            ray.shutdown()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the cluster; end it if it was started here."""
        import ray

        ray.shutdown()

    def run(self, jobs: Sequence[Job], stop: Stop, notify: Notify) -> Generator[Outcome]:
        """See :class:`cascadezoo.sweep.executors.Executor`."""
        import ray

        task = ray.remote(_build).options(max_retries=0, **self._request())
        queue = deque(jobs)
        running: dict[Any, Job] = {}
        sizes: dict[str, int] = {}
        most = self.jobs or len(jobs)
        threads = self.resources.cpus or 1
        while running or (queue and not stop()):
            while queue and len(running) < most and not stop():
                job = replace(queue.popleft(), threads=threads)
                sizes[job.name] = _size(job.log)
                running[task.remote(job, self.stop_file, self.resources.gpus > 0)] = job
            if stop() and not self.stop_file.exists():
                self.stop_file.touch()
            ended, _ = ray.wait(list(running), timeout=PAUSE)
            for job in running.values():
                if job.name in sizes and _size(job.log) > sizes[job.name]:
                    del sizes[job.name]
                    notify(job.name, "started")
            for reference in ended:
                job = running.pop(reference)
                try:
                    yield ray.get(reference)
                except ray.exceptions.RayError as error:
                    yield Outcome(job.name, "failed", f"Ray worker died: {_first(error)}")

    def _request(self) -> dict[str, Any]:
        memory = self.resources.memory_gib
        return {
            "num_cpus": self.resources.cpus or 1,
            "num_gpus": self.resources.gpus,
            **({} if memory is None else {"memory": int(memory * GIB)}),
        }

    def require_room(self, nodes: Sequence[dict[str, Any]]) -> None:
        """Refuse a request that no machine can ever meet."""
        request = self._request()
        resources = {
            "CPU": request["num_cpus"],
            "GPU": request["num_gpus"],
            "memory": request.get("memory", 0),
        }
        alive = [node["Resources"] for node in nodes if node["Alive"]]
        if any(all(node.get(k, 0) >= v for k, v in resources.items()) for node in alive):
            return
        listed = ", ".join(
            f"{value / GIB:g} GiB of memory" if name == "memory" else f"{value:g} {name}"
            for name, value in resources.items()
            if value
        )
        raise ResourceError(
            f"a cell needs {listed}, but no machine of the Ray cluster has this",
            hint="lower resources in the sweep, or choose a larger cluster with --ray-address",
            code="resources-ray",
            name=listed,
        )


def _build(job: Job, stop_file: Path, gpus: bool) -> Outcome:
    """Build a cell in a worker. If the worker dies, the build ends too."""
    if not gpus:
        job = replace(job, env={**job.env, "CUDA_VISIBLE_DEVICES": ""})
    process = CellProcess(job)
    try:
        while True:
            if stop_file.exists():
                process.stop()
            outcome = process.poll()
            if outcome is not None:
                return outcome
            time.sleep(PAUSE)
    finally:
        process.kill()


def _require_answer(place: str | None) -> None:
    """Refuse an address that does not answer, because ray itself waits for many minutes.

    Raises:
        InputError: the address does not answer.
    """
    match = re.fullmatch(r"(?:ray://)?\[?([^\]]+?)\]?:([0-9]{1,5})", place or "")
    if match is None:
        return  # no address, or a word such as auto, which ray resolves
    try:
        socket.create_connection((match[1], int(match[2])), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise _no_answer(place, error) from error


def _no_answer(place: str | None, error: BaseException) -> InputError:
    return InputError(
        f"the Ray cluster at {place} does not answer: {_first(error)}",
        hint="start one with `ray start --head`, or omit --ray-address and RAY_ADDRESS",
        code="input-ray-unreachable",
        name=place,
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _first(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
