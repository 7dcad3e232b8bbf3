"""How much memory a training took at most, as far as the system tells."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

__all__ = ["peak_memory", "reset_peak"]


def reset_peak(device: torch.device) -> None:
    """Begin to count the device's peak anew; that of the process cannot be."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> dict[str, int]:
    """Peaks in bytes; waits for nothing.

    Returns:
        ``device_peak_bytes``: the most that torch's allocator held on a CUDA device since
        :func:`reset_peak`; absent elsewhere. ``process_peak_bytes``: the largest resident set of
        this process since it began, whatever it did; absent where the system does not tell.
    """
    found = {}
    if device.type == "cuda":
        found["device_peak_bytes"] = int(torch.cuda.max_memory_allocated(device))
    peak = _resident_peak()
    return found if peak is None else {**found, "process_peak_bytes": peak}


def _resident_peak() -> int | None:
    # Linux begins ru_maxrss with that of the parent, which may be larger than ever this process.
    try:
        with Path("/proc/self/status").open(encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
