"""The memory that this process can still allocate, on the host or on a CUDA device."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from cascadezoo.data.memory import physical_memory

__all__ = ["free_memory"]

_CGROUPS = Path("/sys/fs/cgroup")
_PROC = Path("/proc")
_UNLIMITED = 1 << 60


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be allocated on a device; None if the system does not report them.

    For the host: the smallest of the free memory, the memory that the machine has besides that of
    this process, the rest of every control group (version 1 and 2) around this process, and the
    rest of its limit of address space (``ulimit -v``).
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free + unused)
    if device.type != "cpu":
        return None
    rest = [size for size in _host() if size is not None]
    return max(min(rest), 0) if rest else None


def _host() -> Iterator[int | None]:
    status = _sizes(_PROC / "self" / "status")
    physical = physical_memory()
    yield None if physical is None else physical - status.get("VmRSS", 0)
    yield _sizes(_PROC / "meminfo").get("MemAvailable")
    yield _address_space(status.get("VmSize", 0))
    yield from _control_groups()


def _address_space(used: int) -> int | None:
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else soft - used


def _control_groups() -> Iterator[int | None]:
    """The rest of each group with a limit, from the innermost to the outermost."""
    for line in _text(_PROC / "self" / "cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and "memory" not in controllers.split(","):
            continue
        root = _CGROUPS / "memory" if controllers else _CGROUPS
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        if not controllers:
            names = ("memory.max", "memory.current", "inactive_file")
        # In a container the path is often that of the host, and only the root exists.
        inner = root / path.strip("/")
        for group in (inner, *inner.parents):
            yield _rest(group, *names)
            if group == root:
                break


def _rest(group: Path, limit: str, usage: str, cache: str) -> int | None:
    most, used = _text(group / limit).strip(), _text(group / usage).strip()
    if not (most.isdigit() and used.isdigit()) or int(most) > _UNLIMITED:
        return None
    # The kernel drops cached files before it refuses memory.
    rows = dict(line.split(" ", 1) for line in _text(group / "memory.stat").splitlines())
    return int(most) - int(used) + int(rows.get(cache, "0"))


def _sizes(path: Path) -> dict[str, int]:
    """The rows ``Name:   123 kB`` of a file, in bytes."""
    sizes = {}
    for line in _text(path).splitlines():
        name, _, value = line.partition(":")
        if value.endswith(" kB"):
            sizes[name] = int(value[:-3]) * 1024
    return sizes


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
