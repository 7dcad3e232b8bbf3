"""Measures the memory of each process of a training with ddp and with fsdp, on the CPU.

python tests/benchmarks/process_memory.py [--channels 320] [--worlds 2,4] [--parallel ddp,fsdp]
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from process_cases import run_processes

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.data.base import ImageData
from cascadezoo.data.loader import DeviceLoader
from cascadezoo.spec import load_spec
from cascadezoo.train.engine import make_accelerator
from cascadezoo.train.trainer import Trainer

STEPS = 4


def spec(channels: int, parallel: str) -> dict[str, Any]:
    config = {"size": 8, "channels": channels, "blocks": 3, "multipliers": [1, 2]}
    phase = {"name": "coarse", "train": ["coarse"], "steps": STEPS}
    return {
        "name": "memory",
        "data": {"source": "shapes", "config": {"size": 8, "count": 64}, "num_classes": 8},
        "stages": [{"name": "coarse", "kind": "flow.v1", "config": config}],
        "training": {
            "batch_size": 4,
            "compile": False,
            "losses": [],
            "phases": [phase],
            "parallel": parallel,
        },
    }


def resident(name: str) -> float:
    """VmRSS or VmHWM of this process in MiB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise ValueError(name)


def measure(channels: int, parallel: str) -> dict[str, float]:
    """Resident memory in MiB: before the cascade, between steps, and at most in a step."""
    accelerator = make_accelerator(torch.device("cpu"), "fp32")
    images = np.random.default_rng(0).integers(0, 256, (64, 3, 8, 8), dtype=np.uint8)
    rank, world = accelerator.process_index, accelerator.num_processes
    data = ImageData(images, np.arange(64) % 8, "train")
    loader = DeviceLoader(data, batch_size=4, seed=0, device="cpu", rank=rank, world=world)
    before = resident("VmRSS")
    cascade = Cascade.from_spec(load_spec(spec(channels, parallel)))
    rows: list[tuple[float, float]] = []

    def stop() -> None:
        peak = resident("VmHWM")
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        rows.append((resident("VmRSS"), peak))
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM

    Trainer(cascade, loader, accelerator, data=data, stop=stop).run()
    # The first step allocates the optimizer's state.
    between, peak = rows[-2]
    return {"before": before, "between": between - before, "peak": peak - before}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--channels", type=int, default=320)
    parser.add_argument("--worlds", default="2,4")
    parser.add_argument("--parallel", default="ddp,fsdp")
    arguments = parser.parse_args()
    cascade = Cascade.from_spec(load_spec(spec(arguments.channels, "ddp")), device="meta")
    number = sum(p.numel() for p in cascade.parameters())
    print(f"{number / 1e6:.1f} M parameters, {number * 4 / 2**20:.0f} MiB of weights", flush=True)
    for parallel in arguments.parallel.split(","):
        for world in map(int, arguments.worlds.split(",")):
            rows = run_processes(world, measure, arguments.channels, parallel, timeout=900.0)
            most = {key: max(row[key] for row in rows) for key in rows[0]}
            shown = ", ".join(f"{key} {value:,.0f} MiB" for key, value in most.items())
            print(f"{parallel}, {world} processes: {shown}", flush=True)


if __name__ == "__main__":
    main()
