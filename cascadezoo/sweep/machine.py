"""Describes the machine of a sweep without names of hosts or users. Does not import torch."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from cascadezoo._version import __version__
from cascadezoo.sweep.executors import cores

__all__ = ["describe_machine"]


def describe_machine(devices: Iterable[str] = ()) -> dict[str, Any]:
    """Describe the machine on which the sweep was started.

    Args:
        devices: the training devices that the cells report.
    """
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": cores(),
        "memory_gib": _memory(),
        "devices": sorted(set(devices)),
        "python": platform.python_version(),
        "torch": metadata.version("torch"),
        "cascadezoo": __version__,
    }


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine()
    models = [line for line in text.splitlines() if line.startswith("model name")]
    return models[0].partition(":")[2].strip() if models else platform.machine()


def _memory() -> float | None:
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
