"""Small sweeps, and processes by their command line."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BASE: dict[str, Any] = {
    "name": "lone",
    "data": {"source": "shapes", "config": {"size": 8, "count": 64, "test_count": 32}},
    "stages": [
        {
            "name": "coarse",
            "kind": "flow.v1",
            "config": {"size": 4, "channels": 8, "multipliers": [1], "steps": 2},
        },
        {"name": "up", "kind": "pixelshuffle.v1", "config": {"hidden": 8, "blocks": 1}},
    ],
    "training": {
        "batch_size": 16,
        "losses": [],
        "phases": [
            {"name": "first", "train": ["coarse", "up"], "steps": 4},
            {"name": "last", "train": ["up"], "steps": 4},
        ],
    },
    "evaluation": {"metrics": [], "extractor": "small"},
}

UPSAMPLERS = {
    "pixelshuffle": {"kind": "pixelshuffle.v1", "config": {"hidden": 8, "blocks": 1}},
    "interpolate": {"kind": "interpolate.v1"},
}


def base(**changes: Any) -> dict[str, Any]:
    """A copy of the base with changes."""
    data: dict[str, Any] = json.loads(json.dumps(BASE))
    return {**data, **changes}


def sweep(*axes: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A sweep over some axes; by default over two upsamplers and two seeds."""
    rows = list(axes) or [
        {"name": "upsampler", "path": "stages.up", "values": UPSAMPLERS},
        {"name": "seed", "path": "seed", "values": [0, 1]},
    ]
    return {"name": "mini", "base": base(), "axes": rows, **changes}


def axis(name: str, path: str, values: Any) -> dict[str, Any]:
    return {"name": name, "path": path, "values": values}


def processes(*parts: str) -> list[int]:
    """The ids of processes whose command line contains all parts."""
    pids = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                dead = (folder / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
            except OSError:
                continue
            if all(part in line for part in parts) and not dead:
                pids.append(int(folder.name))
    return pids


def parent(pid: int) -> int:
    return int((Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])


def wait_for(holds: Callable[[], Any], seconds: float = 180.0) -> Any:
    """Wait until a condition holds, and return its value."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        value = holds()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError("the condition did not hold in time")
