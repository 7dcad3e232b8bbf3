"""Peak memory of a training, as far as the system reports it."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

__all__ = ["is_out_of_memory", "peak_memory", "reset_peak"]


def is_out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed. On a CPU PyTorch has no class of its own for it."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def reset_peak(device: torch.device) -> None:
    """Reset the peak of the device. The peak of the process cannot be reset."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> dict[str, int]:
    """Peaks in bytes. Does not wait for the device.

    Returns:
        ``device_peak_bytes``: peak of torch's allocator on a CUDA device since
        :func:`reset_peak`; absent on other devices. ``process_peak_bytes``: largest resident set
        of this process since its start; absent if the system does not report it.
    """
    peaks = {}
    if device.type == "cuda":
        peaks["device_peak_bytes"] = int(torch.cuda.max_memory_allocated(device))
    peak = _resident_peak()
    return peaks if peak is None else {**peaks, "process_peak_bytes": peak}


def _resident_peak() -> int | None:
    # On Linux ru_maxrss starts with the value of the parent, which may exceed this process's peak.
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
