"""Sweeps on Ray: a real cluster of two nodes in separate processes."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from errors_help import raises
from sweep_cases import processes, sweep, wait_for

from cascadezoo.errors import InputError, ResourceError
from cascadezoo.sweep.ray_executor import RayExecutor
from cascadezoo.sweep.run_sweep import run_sweep
from cascadezoo.sweep.spec import ResourceSpec

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="ray is not installed: pip install ray"
)
RAY = ("raylet", "gcs_server")


@pytest.mark.slow
@needs_ray
def test_a_killed_worker_and_an_interruption_leave_nothing_behind(tmp_path: Path):
    before = set(processes(RAY[0])) | set(processes(RAY[1]))
    out = tmp_path / "ray"
    env = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    env.pop("RAY_ADDRESS", None)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(Path(__file__).with_name("ray_driver.py")), str(out)],
        env=env,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["states"] == {"few-s0": "done", "many-s0": "failed", "some-s0": "done"}
    assert "Ray worker" in result["error"]
    assert "| many-s0 |".replace("many-s0", "`many-s0`") in (out / "RESULTS.md").read_text()
    # The build of the dead worker wrote a checkpoint and exited.
    assert result["interrupted"] == "SIGINT"
    assert result["stopped"] == {"few-s0": "done", "many-s0": "stopped", "some-s0": "done"}
    log = (out / "cells/many-s0.log").read_text()
    assert int(re.findall(r"resumed at step (\d+)", log)[-1]) > 0
    wait_for(lambda: not (set(processes(RAY[0])) | set(processes(RAY[1]))) - before)
    assert processes(str(out)) == []


@needs_ray
def test_resources_beyond_every_machine(tmp_path: Path):
    resources = ResourceSpec(cpus=4, gpus=0.5, memory_gib=2.0)
    executor = RayExecutor(None, resources, tmp_path / ".stop")
    gib = 2**30
    nodes = [
        {"Alive": True, "Resources": {"CPU": 8.0, "memory": 8 * gib}},
        {"Alive": True, "Resources": {"CPU": 2.0, "GPU": 1.0, "memory": 8 * gib}},
        {"Alive": False, "Resources": {"CPU": 8.0, "GPU": 8.0, "memory": 8 * gib}},
    ]
    with raises(ResourceError, "resources-ray", name="4 CPU, 0.5 GPU, 2 GiB of memory"):
        executor.require_room(nodes)
    nodes[2]["Alive"] = True
    executor.require_room(nodes)


@needs_ray
@pytest.mark.parametrize("place", ["127.0.0.1:9", "ray://127.0.0.1:9", "ray://[::1]:9"])
def test_a_cluster_that_does_not_answer(tmp_path: Path, place: str):
    executor = RayExecutor(None, ResourceSpec(), tmp_path / ".stop", place)
    with raises(InputError, "input-ray-unreachable", name=place) as caught, executor:
        raise AssertionError("it was joined")
    assert "ray start --head" in str(caught.value.hint)


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="ray is installed")
def test_without_ray(tmp_path: Path):
    with raises(InputError, "input-ray-missing") as caught:
        run_sweep(sweep(), tmp_path / "out", executor="ray")
    assert "pip install 'cascadezoo[ray]'" in str(caught.value.hint)
