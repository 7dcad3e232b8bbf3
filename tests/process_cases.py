"""Runs functions in several processes that form a group, as torchrun starts them."""

from __future__ import annotations

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

# A fresh interpreter for each process would spend most of a test importing torch.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["cascadezoo.train.trainer", "accelerate"])


def free_port() -> int:
    """A port of this machine that is not in use."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(rank: int, world: int, port: int) -> dict[str, str]:
    """The variables that torchrun sets for a process."""
    names = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": world,
        "LOCAL_WORLD_SIZE": world,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "OMP_NUM_THREADS": 1,
    }
    return {name: str(value) for name, value in names.items()}


def run_processes(
    world: int, function: Callable[..., Any], *args: Any, timeout: float = 600.0
) -> list[Any]:
    """The results of a function of an importable module, called in each of several processes.

    An exception in a process becomes its result.
    """
    port, workers = free_port(), []
    for rank in range(world):
        ours, theirs = _CONTEXT.Pipe(duplex=False)
        variables = environment(rank, world, port)
        process = _CONTEXT.Process(
            target=_work, args=(theirs, variables, function, args), daemon=True
        )
        process.start()
        theirs.close()
        workers.append((process, ours))
    results = []
    for _, ours in workers:
        try:
            if not ours.poll(timeout):
                raise TimeoutError(f"{function.__name__} takes more than {timeout} s")
            results.append(ours.recv())
        except EOFError:
            results.append(None)  # killed
        finally:
            if len(results) == world:
                for other, _ in workers:
                    other.join(10)
                    other.kill()
    return results


def _work(
    theirs: Connection, variables: dict[str, str], function: Callable[..., Any], args: Any
) -> None:
    os.environ.update(variables)
    import torch

    torch.set_num_threads(1)
    try:
        result = function(*args)
    except Exception as error:  # noqa: BLE001 - reported to the test
        traceback.print_exc()
        result = error
    theirs.send(result)
    theirs.close()
