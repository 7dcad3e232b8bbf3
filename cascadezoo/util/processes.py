"""The processes that torchrun starts together: their store, agreements, and one report of an error.

Torch is imported only if there are several processes.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from cascadezoo.errors import CascadezooError, TrainingError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = [
    "Agreement",
    "Peers",
    "broadcast_value",
    "claim_report",
    "gather_to_first",
    "gather_values",
    "is_restart",
    "join",
    "lost_peers",
    "process_count",
    "process_rank",
]

T = TypeVar("T")

_REPORTED = "cascadezoo/reported"
_CONNECT = timedelta(seconds=120)
# A process that loses its peers waits this long for the report of the one that failed first.
_PATIENCE = 5.0
_OTHER = 1 << 16

_store: Any = None


def process_count() -> int:
    """Number of processes that torchrun started together; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_rank() -> int:
    """Index of this process among them, from 0."""
    return int(os.environ.get("RANK", "0")) if process_count() > 1 else 0


def is_restart() -> bool:
    """Whether torchrun started the processes again after a failure (``--max-restarts``)."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") or 0) > 0


def join(device: torch.device) -> None:
    """Join the process group of all processes. Does nothing for one process or the second time.

    Tensors on the CPU are exchanged by gloo, those on CUDA devices by NCCL.
    """
    import torch.distributed as dist

    if process_count() < 2 or dist.is_initialized():
        return
    backend = "cuda:nccl,cpu:gloo" if device.type == "cuda" else "gloo"
    if device.type == "cuda":
        import torch

        local = int(os.environ.get("LOCAL_RANK", "0"))
        torch.cuda.set_device(device.index if device.index is not None else local)
    dist.init_process_group(
        backend,
        store=dist.PrefixStore("cascadezoo", _connect()),  # type: ignore[attr-defined]
        rank=process_rank(),
        world_size=process_count(),
    )


def _connect() -> Any:
    """The store of torchrun, which all processes can reach before they form a group."""
    global _store
    if _store is None:
        import torch.distributed as dist
        from torch.distributed.rendezvous import rendezvous

        found, _, _ = next(rendezvous("env://", process_rank(), process_count(), timeout=_CONNECT))
        # The store outlives a restart, with the addresses of processes that have ended.
        start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        _store = dist.PrefixStore(f"start-{start}", found)  # type: ignore[attr-defined]
    return _store


def claim_report(error: BaseException) -> bool:
    """Whether this process shall print an error that ends it.

    An error of several processes is printed once, by the first that asks. An error that follows
    from the end of another process is printed only if no process has printed the reason.
    """
    if process_count() < 2:
        return True
    try:
        store = _connect()
        if getattr(error, "code", None) == "training-process-lost":
            end = time.monotonic() + _PATIENCE
            while time.monotonic() < end and not store.check([_REPORTED]):
                time.sleep(0.1)
        return int(store.add(_REPORTED, 1)) == 1
    except (RuntimeError, ValueError, OSError):
        # Without a store, a second report is better than none.
        return True


@contextmanager
def lost_peers() -> Iterator[None]:
    """Turn the errors of a broken connection inside the block into a TrainingError.

    Raises:
        TrainingError: another process has ended or does not answer.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, CascadezooError) or not is_lost_peer(error):
            raise
        raise TrainingError(
            f"process {process_rank()} of {process_count()} lost the connection to the others: "
            "another process has ended",
            hint="run the same command again to resume from the last checkpoint; "
            "torchrun --max-restarts N does so by itself",
            code="training-process-lost",
            rank=process_rank(),
            world=process_count(),
        ) from error


def is_lost_peer(error: BaseException) -> bool:
    """Whether an error of torch means that another process is gone."""
    if process_count() < 2 or not isinstance(error, RuntimeError):
        return False
    import torch.distributed as dist

    if isinstance(error, dist.DistError):
        return True
    text = str(error)
    return "gloo/" in text or "Connection closed by peer" in text or "NCCL" in text


def gather_values(value: T) -> list[T]:
    """The values of all processes, in order of their rank; they must be picklable."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return [value]
    rows: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(rows, value, group=_control())
    return rows


def broadcast_value(value: T) -> T:
    """The value of the first process, in all of them; it must be picklable."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return value
    rows: list[Any] = [value]
    dist.broadcast_object_list(rows, src=0, group=_control())
    result: T = rows[0]
    return result


def gather_to_first(value: T) -> list[T]:
    """The values of all processes in the first one, in order of their rank; [] in the others."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return [value]
    first = dist.get_rank() == 0
    rows: list[Any] | None = [None] * dist.get_world_size() if first else None
    dist.gather_object(value, rows, dst=0, group=_control())
    return rows or []


_group: Any = None
_group_of: Any = None


def _control() -> Any:
    """A group of its own for values on the host, so that they do not wait for gradients."""
    global _group, _group_of
    import torch.distributed as dist

    if _group is None or _group_of is not dist.group.WORLD:
        # Other processes may wait as long as the first one computes figures. The end of a process
        # closes its connections and does not wait for this limit.
        _group = dist.new_group(backend="gloo", timeout=timedelta(days=7))
        _group_of = dist.group.WORLD
    return _group


class Agreement:
    """What all processes agreed on.

    Args:
        reason: why the training stops; None if it goes on.
        failed: whether a process cannot go on.
        due: whether a checkpoint is due.
    """

    __slots__ = ("due", "failed", "reason")

    def __init__(self, reason: str | None, failed: bool, due: bool) -> None:
        self.reason = reason
        self.failed = failed
        self.due = due


class Peers:
    """Lets the processes of a training agree after each step, without waiting for each other.

    The flags of a step are sent while the next step runs, and hold after it, in all processes. A
    single process agrees with itself at once.
    """

    def __init__(self) -> None:
        import torch.distributed as dist

        self.world = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
        self._sent: tuple[Any, Tensor, str | None] | None = None

    def agree(self, reason: str | None, failed: bool, due: bool, *, now: bool = False) -> Agreement:
        """Send the flags of this process and return those of the call before.

        Args:
            reason: why this process wants to stop.
            failed: whether this process cannot go on.
            due: whether a checkpoint is due in the first process.
            now: wait for the flags of this call too; no flags stay on the way.
        """
        if self.world == 1:
            return Agreement(reason, failed, due)
        rows = [self._receive()]
        self._send(reason, failed, due)
        if now:
            rows.append(self._receive())
        reasons = [row.reason for row in rows if row.reason is not None]
        return Agreement(
            reasons[0] if reasons else None,
            any(row.failed for row in rows),
            any(row.due for row in rows),
        )

    def _send(self, reason: str | None, failed: bool, due: bool) -> None:
        import torch
        import torch.distributed as dist

        flags = torch.tensor([_number(reason), int(failed), int(due and dist.get_rank() == 0)])
        work = dist.all_reduce(flags, op=dist.ReduceOp.MAX, group=_control(), async_op=True)
        self._sent = (work, flags, reason)

    def _receive(self) -> Agreement:
        if self._sent is None:
            return Agreement(None, False, False)
        work, flags, reason = self._sent
        self._sent = None
        work.wait()
        number, failed, due = flags.tolist()
        return Agreement(_reason(number, reason), bool(failed), bool(due))


def _number(reason: str | None) -> int:
    if reason is None:
        return 0
    return int(signal.Signals[reason]) if reason in signal.Signals.__members__ else _OTHER


def _reason(number: int, own: str | None) -> str | None:
    if number == 0:
        return None
    if number == _OTHER:
        return own or "another process"
    return signal.Signals(number).name
