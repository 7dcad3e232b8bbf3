"""Profile of a training step and of sampling: the kernels and the idle time of a GPU.

Prints a table, and writes ``$OUT/profile.json`` if OUT is set. On a CPU (``--small`` uses a small
network) it measures only times.

    python tests/gpu/profile_step.py
    python tests/gpu/profile_step.py --small
    python tests/gpu/profile_step.py --spec cifar10.json --precision bf16
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import json
import os
import platform
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from cascadezoo.build.plan import make_plan
from cascadezoo.cascade.cascade import Cascade
from cascadezoo.data.base import ImageData
from cascadezoo.data.loader import DeviceLoader
from cascadezoo.spec import ResolvedSpec, load_spec
from cascadezoo.train.engine import (
    Precision,
    describe_device,
    make_accelerator,
    pick_device,
    tune_backends,
)
from cascadezoo.train.progress import QuietProgress
from cascadezoo.train.trainer import Trainer

# Dense bf16 and TF32 FLOPs per second of an H100 SXM, from its data sheet.
PEAK = {"bf16": 989e12, "fp16": 989e12, "fp32": 494e12}
ON_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}

DEFAULT: dict[str, Any] = {
    "name": "profile",
    "data": {"source": "shapes", "config": {"size": 16, "count": 32, "test_count": 8}},
    "stages": [
        {
            "name": "coarse",
            "kind": "flow.v1",
            "config": {"channels": 64, "multipliers": [1, 2, 2], "blocks": 1, "attention": [8]},
        }
    ],
    "training": {"batch_size": 512, "losses": []},
    "evaluation": {"metrics": [], "extractor": "small"},
}


def shrunk(spec: dict[str, Any]) -> dict[str, Any]:
    """The default spec at a size for a CPU."""
    config = {"channels": 8, "multipliers": [1, 2], "blocks": 1, "steps": 3}
    stages = [{**spec["stages"][0], "config": config}]
    return {**spec, "stages": stages, "training": {**spec["training"], "batch_size": 8}}


# --- reading a trace


def union(spans: Iterable[tuple[float, float]]) -> float:
    """The time that spans (start, end) cover together."""
    covered, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        if stop > end:
            covered += stop - max(start, end)
            end = stop
    return covered


@dataclasses.dataclass
class Trace:
    """The activity of a device during some steps.

    Args:
        launches: kernels, copies and fills per step.
        busy_ms: time per step in which at least one of them ran.
        idle_in_trace: the share of the traced time in which none ran; the profiler increases it.
        kernels: name, milliseconds per step and number per step of the longest ones.
    """

    launches: float
    busy_ms: float
    idle_in_trace: float
    kernels: list[tuple[str, float, float]]


def read_trace(events: Iterable[dict[str, Any]], steps: int, most: int = 12) -> Trace | None:
    """Read the events of a Chrome trace of ``steps`` steps; None without device events."""
    rows = [e for e in events if e.get("ph") == "X" and e.get("cat") in ON_DEVICE]
    if not rows:
        return None
    spans = [(e["ts"], e["ts"] + e["dur"]) for e in rows]
    busy = union(spans)
    whole = max(stop for _, stop in spans) - min(start for start, _ in spans)
    times: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    for event in rows:
        times[event["name"]] += event["dur"]
        counts[event["name"]] += 1
    longest = sorted(times, key=lambda name: -times[name])[:most]
    return Trace(
        launches=len(rows) / steps,
        busy_ms=busy / 1000 / steps,
        idle_in_trace=1 - busy / whole,
        kernels=[(n, times[n] / 1000 / steps, counts[n] / steps) for n in longest],
    )


# --- measurements


class Measured(QuietProgress):
    """The progress of a training: times some steps, then traces some more."""

    def __init__(self, device: torch.device, warm_up: int, timed: int, traced: int) -> None:
        self.device = device
        self.begin, self.end = warm_up, warm_up + timed
        self.stop = self.end + traced
        self.warm_up_seconds = self.ms = 0.0
        self.events: list[dict[str, Any]] = []
        self._since = time.perf_counter()
        self._profile: profile | None = None

    def step(self, done: int, epoch: int, epochs: int) -> None:
        if done not in (self.begin, self.end, self.stop):
            return
        wait(self.device)
        now = time.perf_counter()
        if done == self.begin:
            self.warm_up_seconds = now - self._since
        elif done == self.end:
            self.ms = (now - self._since) * 1000 / (self.end - self.begin)
            self._profile = begin_trace(self.device)
        elif self._profile is not None:
            self.events = end_trace(self._profile)
        self._since = time.perf_counter()


def begin_trace(device: torch.device) -> profile:
    """Start the profiler, only for the device, to slow down the host as little as possible."""
    cuda = device.type == "cuda"
    profiler = profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU])
    profiler.__enter__()
    return profiler


def end_trace(profiler: profile) -> list[dict[str, Any]]:
    """Stop the profiler and return the events of its trace."""
    profiler.__exit__(None, None, None)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    return events


def wait(device: torch.device) -> None:
    """Wait until the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def images_of(resolved: ResolvedSpec, batches: int) -> ImageData:
    """Labelled noise of the cascade's size."""
    shape, count = resolved.stages[-1].output, batches * resolved.spec.training.batch_size
    size = (count, shape.channels, shape.size, shape.size)
    images = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    return ImageData(images, np.arange(count) % (resolved.num_classes or 1), "train")


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """The autocast context of a precision."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, DTYPES[precision])


def measure(spec: dict[str, Any], options: argparse.Namespace, scope: str) -> dict[str, Any]:
    """Train and sample; return the figures by name.

    Args:
        spec: the spec.
        options: the options of the command line.
        scope: ``eager``, ``graphs``, ``blocks`` or ``network``.
    """
    device = pick_device(options.device)
    total = options.warm_up + options.steps + options.traced + 1
    training = {**spec.get("training", {}), "log_steps": 1_000_000, "checkpoint_seconds": 1e6}
    phases = training.get("phases") or [{"train": [stage["name"] for stage in spec["stages"]]}]
    first = {k: v for k, v in phases[options.phase].items() if k not in ("epochs", "reflow")}
    training["phases"] = [{"name": "profile", **first, "steps": total}]
    resolved = load_spec({**spec, "training": training})
    precision: Precision = options.precision
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    torch.compiler.reset()
    cascade = Cascade.from_spec(resolved, device=device)
    tune_backends(device, options.precision)
    if scope in ("blocks", "network"):
        cascade.compile(scope)
    data = images_of(resolved, batches=8)
    loader = DeviceLoader(
        data, batch_size=resolved.spec.training.batch_size, seed=0, flip=True, device=device
    )
    measured = Measured(device, options.warm_up, options.steps, options.traced)
    accelerator = make_accelerator(device, precision)
    Trainer(
        cascade, loader, accelerator, data=data, progress=measured, graphs=scope == "graphs"
    ).run()
    trace = read_trace(measured.events, options.traced)
    rate = loader.batch_size / measured.ms * 1000
    plan = make_plan(resolved, device)
    trained = [row for row in plan.stages if row.name in resolved.spec.training.phases[0].train]
    flops = sum(row.flops_forward or 0 for row in trained) * 3
    peak = options.peak or PEAK[precision]
    figures = {
        "compiled": scope,
        "parameters": plan.parameters,
        "batch_size": loader.batch_size,
        "first_steps_seconds": round(measured.warm_up_seconds, 2),
        "ms_per_step": round(measured.ms, 3),
        "images_per_second": round(rate, 1),
        "flops_per_image": flops,
        "tflops": round(flops * rate / 1e12, 2),
        "utilisation": round(flops * rate / peak, 4) if device.type == "cuda" else None,
        **dict.fromkeys(("launches_per_step", "busy_ms", "idle_share", "idle_share_in_trace")),
        "planned_mib": round(plan.training_bytes / 2**20),
        "peak_mib": None,
        "kernels": [],
    }
    if device.type == "cuda":
        figures["peak_mib"] = round(torch.cuda.max_memory_allocated(device) / 2**20)
    if trace is not None:
        figures["launches_per_step"] = round(trace.launches, 1)
        figures["busy_ms"] = round(trace.busy_ms, 3)
        # The idle share of a step without the profiler.
        figures["idle_share"] = round(max(0.0, 1 - trace.busy_ms / measured.ms), 4)
        figures["idle_share_in_trace"] = round(trace.idle_in_trace, 4)
        figures["kernels"] = [
            {"name": n, "ms": round(ms, 4), "calls": c} for n, ms, c in trace.kernels
        ]
    figures.update(sampling(cascade, device, options))
    return figures


def sampling(cascade: Cascade, device: torch.device, options: argparse.Namespace) -> dict[str, Any]:
    """Images per second of sampling, and the time of the first call, which compiles."""
    count = options.samples
    seconds = []
    with autocast(device, options.precision):
        for seed in range(1 + options.repeats):
            began = time.perf_counter()
            cascade.sample(count, seed=seed, batch_size=count)
            wait(device)
            seconds.append(time.perf_counter() - began)
    return {
        "sampling_first_seconds": round(seconds[0], 2),
        "sampling_images_per_second": round(count / min(seconds[1:]), 1),
        "sampling_batch": count,
    }


# --- output


def show(runs: list[dict[str, Any]]) -> None:
    """Print the figures in columns, then the kernels."""
    for key in runs[0]:
        if key != "kernels":
            print(f"{key:28}" + "".join(f"{run[key]!s:>18}" for run in runs))
    for run in runs:
        if run["kernels"]:
            print(f"\nms/step, calls/step, name; compiled: {run['compiled']}")
        for row in run["kernels"]:
            print(f"{row['ms']:9.4f} {row['calls']:7.1f}  {row['name'][:110]}")
    print(flush=True)


def parsed() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a small network and few steps")
    parser.add_argument(
        "--spec", help="a spec file or a shipped spec; one of its phases is profiled"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=PEAK, default="bf16")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--peak", type=float, help="peak FLOPs per second of the device")
    parser.add_argument("--warm-up", type=int, default=15)
    parser.add_argument("--steps", type=int, default=60, help="number of timed steps")
    parser.add_argument("--traced", type=int, default=10, help="number of traced steps")
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=2, help="number of timed sampling runs")
    parser.add_argument("--scopes", default="eager,graphs", help="the compiled parts")
    parser.add_argument("--phase", type=int, default=0, help="index of the phase, from 0")
    parser.add_argument("--name", default="profile", help="name of the file in $OUT")
    options = parser.parse_args()
    if options.small:
        options.warm_up, options.steps, options.traced = 2, 4, 2
        options.samples, options.repeats = 4, 1
    return options


def main() -> None:
    """Profile each scope of compilation."""
    options = parsed()
    if options.spec:
        spec = load_spec(options.spec).spec.to_dict()
    else:
        spec = shrunk(DEFAULT) if options.small else DEFAULT
    if options.batch_size:
        spec = {**spec, "training": {**spec.get("training", {}), "batch_size": options.batch_size}}
    device = pick_device(options.device)
    machine = (
        f"{describe_device(device)}, torch {torch.__version__}, Python {platform.python_version()}"
    )
    print(f"{spec['name']} in {options.precision} on {machine}", flush=True)
    runs: list[dict[str, Any]] = []
    for scope in options.scopes.split(","):
        # Save and print each result at once, in case the next scope takes too long.
        runs.append(measure(spec, options, scope))
        show(runs[-1:])
        if out := os.environ.get("OUT"):
            data = {"machine": machine, "precision": options.precision, "spec": spec, "runs": runs}
            path = Path(out) / f"{options.name}.json"
            path.write_text(json.dumps(data, indent=2), encoding="utf-8")
    if len(runs) > 1:
        show([{**run, "kernels": []} for run in runs])


if __name__ == "__main__":
    main()
