"""The profile of a step reads a trace and runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from profile_step import Trace, read_trace, union


def event(name: str, start: float, length: float, cat: str = "kernel") -> dict[str, Any]:
    return {"ph": "X", "cat": cat, "name": name, "ts": start, "dur": length, "args": {}}


def test_overlapping_spans_count_once() -> None:
    assert union([]) == 0
    assert union([(5, 8), (0, 4), (3, 6), (1, 2)]) == 8
    assert union([(0, 1), (2, 3), (2.5, 2.75)]) == 2


def test_a_trace_is_read() -> None:
    events = [
        event("matmul", 1000, 400),
        event("norm", 1200, 300),
        event("copy", 2000, 500, "gpu_memcpy"),
        event("matmul", 2500, 500),
        event("cudaLaunchKernel", 0, 9000, "cuda_runtime"),
        event("step", 0, 9000, "gpu_user_annotation"),
        {"ph": "i", "cat": "kernel", "name": "a mark", "ts": 0},
    ]
    trace = read_trace(events, 2, most=2)
    assert trace == Trace(
        launches=2,
        busy_ms=0.75,
        idle_in_trace=pytest.approx(0.25),
        kernels=[("matmul", 0.45, 1), ("copy", 0.25, 0.5)],
    )
    assert read_trace(events[-3:], 2) is None


@pytest.mark.slow
def test_the_profile_runs_at_small_size(tmp_path: Path) -> None:
    script = Path(__file__).with_name("profile_step.py")
    command = [sys.executable, str(script), "--small", "--scopes", "eager", "--device", "cpu"]
    environment = {**os.environ, "OUT": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (run,) = json.loads((tmp_path / "profile.json").read_text())["runs"]
    assert run["batch_size"] == 8
    assert run["ms_per_step"] > 0
    assert run["images_per_second"] == pytest.approx(8000 / run["ms_per_step"], rel=0.01)
    assert run["flops_per_image"] > 1e6
    assert run["sampling_images_per_second"] > 0
    assert f"{run['ms_per_step']}" in done.stdout
