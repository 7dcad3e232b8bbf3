"""Cells as Ray tasks, on one machine or many. Free of torch; ray is imported when it is used."""

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
from cascadezoo.sweep.executors import Executor, Stop, Told
from cascadezoo.sweep.spec import ResourceSpec

__all__ = ["RayExecutor"]

PAUSE = 0.2
CONNECT = 15.0
GIB = 2**30


class RayExecutor(Executor):
    """Runs cells on a Ray cluster whose machines share the sweep's folder.

    Args:
        jobs: how many at once; None is as many as there are resources for.
        resources: what each needs.
        stop_file: by which running cells hear that they shall stop; on the shared folder.
        address: of a running cluster; None is that of ``RAY_ADDRESS``, or else a cluster of this
            machine alone that ends with the sweep.
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
            InputError: ray is not installed, or no cluster answers.
            ResourceError: no machine of it can hold a cell.
        """
        if importlib.util.find_spec("ray") is None:
            raise InputError(
                "ray is not installed",
                hint="pip install 'cascadezoo[ray]'",
                code="input-ray-missing",
            )
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Devices are hidden from cells that ask for none in _build, as no version of ray changes.
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
        """Leave the cluster; one that was started here ends."""
        import ray

        ray.shutdown()

    def run(self, jobs: Sequence[Job], stop: Stop, told: Told) -> Generator[Outcome]:
        """See :class:`cascadezoo.sweep.executors.Executor`."""
        import ray

        task = ray.remote(_build).options(max_retries=0, **self._request())
        waiting = deque(jobs)
        running: dict[Any, Job] = {}
        sizes: dict[str, int] = {}
        most = self.jobs or len(jobs)
        threads = self.resources.cpus or 1
        while running or (waiting and not stop()):
            while waiting and len(running) < most and not stop():
                job = replace(waiting.popleft(), threads=threads)
                sizes[job.name] = _size(job.log)
                running[task.remote(job, self.stop_file, self.resources.gpus > 0)] = job
            if stop() and not self.stop_file.exists():
                self.stop_file.touch()
            ended, _ = ray.wait(list(running), timeout=PAUSE)
            for job in running.values():
                if job.name in sizes and _size(job.log) > sizes[job.name]:
                    del sizes[job.name]
                    told(job.name, "started")
            for reference in ended:
                job = running.pop(reference)
                try:
                    yield ray.get(reference)
                except ray.exceptions.RayError as error:
                    yield Outcome(job.name, "failed", f"its Ray worker died: {_first(error)}")

    def _request(self) -> dict[str, Any]:
        memory = self.resources.memory_gib
        return {
            "num_cpus": self.resources.cpus or 1,
            "num_gpus": self.resources.gpus,
            **({} if memory is None else {"memory": int(memory * GIB)}),
        }

    def require_room(self, nodes: Sequence[dict[str, Any]]) -> None:
        """Refuse what would wait for ever."""
        asked = self._request()
        wanted = {
            "CPU": asked["num_cpus"],
            "GPU": asked["num_gpus"],
            "memory": asked.get("memory", 0),
        }
        alive = [node["Resources"] for node in nodes if node["Alive"]]
        if any(all(node.get(k, 0) >= v for k, v in wanted.items()) for node in alive):
            return
        listed = ", ".join(
            f"{value / GIB:g} GiB of memory" if name == "memory" else f"{value:g} {name}"
            for name, value in wanted.items()
            if value
        )
        raise ResourceError(
            f"a cell asks for {listed}, and no machine of the Ray cluster has that",
            hint="lower resources in the sweep, or join a larger cluster with --ray-address",
            code="resources-ray",
            name=listed,
        )


def _build(job: Job, stop_file: Path, gpus: bool) -> Outcome:
    """Build a cell in a worker; a worker that dies takes the build with it."""
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
    """Refuse an address at which nobody listens, for which ray itself waits for many minutes.

    Raises:
        InputError: nobody does.
    """
    found = re.fullmatch(r"(?:ray://)?\[?([^\]]+?)\]?:([0-9]{1,5})", place or "")
    if found is None:
        return  # none, or a word such as auto, which ray looks up
    try:
        socket.create_connection((found[1], int(found[2])), timeout=CONNECT).close()
    except (OSError, OverflowError) as error:
        raise _no_answer(place, error) from error


def _no_answer(place: str | None, error: BaseException) -> InputError:
    return InputError(
        f"no Ray cluster answers at {place}: {_first(error)}",
        hint="start one with ray start --head, or leave --ray-address and RAY_ADDRESS out",
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
