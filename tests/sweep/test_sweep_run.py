"""Cells as processes: killed, failed, stopped, resumed, and none left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from sweep_cases import axis, base, processes, sweep, wait_for

from cascadezoo.sweep.cell_process import CellProcess, Job
from cascadezoo.sweep.executors import LocalExecutor, cores
from cascadezoo.sweep.run_sweep import run_sweep
from cascadezoo.sweep.spec import ResourceSpec

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="needs /proc")


@pytest.fixture
def fast_cells(warm_python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes of cells have imported torch already."""
    monkeypatch.setattr(sys, "executable", warm_python)
    monkeypatch.setenv("WARM_CHILDREN", "1")


def job(folder: Path, spec: str = "{}") -> Job:
    (folder / "spec.json").write_text(spec)
    return Job("one", folder / "spec.json", folder / "run", folder / "one.log", folder, "cpu", 1)


def lost(folder: Path) -> Job:
    """A build that dies at its start."""
    code = "import os, sys; print('no room', file=sys.stderr, flush=True); os._exit(7)"
    (folder / "sitecustomize.py").write_text(code)
    dying = job(folder)
    dying.env["PYTHONPATH"] = str(folder)
    return dying


@pytest.mark.slow
@pytest.mark.usefixtures("fast_cells")
def test_a_refused_build_reports_its_reason(tmp_path: Path):
    process = CellProcess(job(tmp_path))
    outcome = wait_for(process.poll)
    assert outcome.state == "failed"
    assert f"{tmp_path}/spec.json" in outcome.error
    assert "name: " in outcome.error
    assert 0 < outcome.seconds < 60
    assert (tmp_path / "one.log").read_text().startswith("--- cascadezoo build, ")


def test_a_build_that_ends_without_an_error_message(tmp_path: Path):
    outcome = wait_for(CellProcess(lost(tmp_path)).poll)
    assert outcome.state == "failed"
    assert "exit code 7" in outcome.error
    assert outcome.error.endswith("no room")


def test_a_cell_waits_for_another_build_of_it(tmp_path: Path):
    (tmp_path / "run").mkdir()
    process = CellProcess(lost(tmp_path))
    lock = FileLock(tmp_path / "run" / ".lock")
    with lock:
        assert process.poll() is None
        assert (process.waiting, process.started) == (True, False)
    assert "exit code 7" in wait_for(process.poll).error
    assert process.started


def test_a_cell_that_is_stopped_before_its_start(tmp_path: Path):
    process = CellProcess(job(tmp_path))
    process.stop()
    assert process.poll() is not None
    assert not (tmp_path / "one.log").exists()


def test_threads_and_devices_are_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,6,7")
    assert LocalExecutor(cores(), ResourceSpec()).threads == 1
    assert LocalExecutor(1, ResourceSpec()).threads == cores()
    assert LocalExecutor(8, ResourceSpec(cpus=3)).threads == 3
    whole = LocalExecutor(2, ResourceSpec(gpus=2))
    assert [whole.placed(job(tmp_path), slot).env for slot in range(2)] == [
        {"CUDA_VISIBLE_DEVICES": "3,5"},
        {"CUDA_VISIBLE_DEVICES": "6,7"},
    ]
    half = LocalExecutor(5, ResourceSpec(gpus=0.5))
    shared = [half.placed(job(tmp_path), slot).env["CUDA_VISIBLE_DEVICES"] for slot in range(5)]
    assert shared == ["3", "5", "6", "7", "3"]
    assert LocalExecutor(2, ResourceSpec()).placed(job(tmp_path), 1).env == {}
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert LocalExecutor(4, ResourceSpec()).threads is None


def npz(path: Path) -> Path:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (64, 8, 8, 3), dtype=np.uint8)
    np.savez(path, train_images=images, test_images=images[:32])
    return path


@pytest.mark.slow
@pytest.mark.usefixtures("fast_cells")
def test_cells_that_fail_or_are_killed_are_named_and_retried_alone(tmp_path: Path):
    kept, gone = npz(tmp_path / "kept.npz"), npz(tmp_path / "gone.npz")
    data = base(data={"source": "npz", "config": {"path": str(kept)}})
    parts = sweep(
        axis("data", "data.config.path", {"kept": str(kept), "gone": str(gone)}),
        axis("fate", "seed", {"lives": 0, "dies": 1}),
        base=data,
        exclude=[{"data": "gone", "fate": "dies"}],
    )
    out = tmp_path / "out"
    ended: list[str] = []

    def kill_build(line: str) -> None:
        if "kept-dies: started" in line:
            gone.rename(tmp_path / "away.npz")
            (pid,) = wait_for(
                lambda: processes("cascadezoo.sweep.watchdog", str(out / "cells/kept-dies"))
            )
            os.kill(pid, signal.SIGKILL)

    results = run_sweep(
        parts, out, device="cpu", progress=kill_build, on_cell=lambda c: ended.append(c.name)
    )
    assert [(c.name, c.state) for c in results.cells] == [
        ("kept-lives", "done"),
        ("kept-dies", "failed"),
        ("gone-lives", "failed"),
    ]
    killed, lost = (str(cell.error) for cell in results.cells[1:])
    assert "SIGKILL" in killed
    assert "gone.npz" in lost
    page = (out / "RESULTS.md").read_text()
    assert "1 done, 2 failed" in page
    assert f"- `kept-dies` failed: {killed}" in page
    assert "kept-dies" in (out / "results.html").read_text()

    (tmp_path / "away.npz").rename(gone)
    before = (out / "cells/kept-lives/run.json").stat().st_mtime_ns
    ended.clear()
    results = run_sweep(parts, out, device="cpu", jobs=2, on_cell=lambda c: ended.append(c.name))
    assert sorted(ended) == ["gone-lives", "kept-dies"]
    assert [c.state for c in results.cells] == ["done"] * 3
    assert (out / "cells/kept-lives/run.json").stat().st_mtime_ns == before
    assert json.loads((out / "state.json").read_bytes()) == {}


@pytest.mark.slow
@pytest.mark.usefixtures("fast_cells")
def test_a_stopped_or_killed_sweep_resumes(tmp_path: Path):
    data = base()
    data["training"] |= {"log_steps": 1}
    data["training"]["phases"][0]["steps"] = 400
    (tmp_path / "sweep.json").write_text(json.dumps(sweep(axis("seed", "seed", [0]), base=data)))
    command = [
        sys.executable,
        "-m",
        "cascadezoo",
        "sweep",
        "sweep.json",
        "-o",
        "out",
        "--device",
        "cpu",
    ]
    events = tmp_path / "out/cells/s0/events.jsonl"

    def begin() -> subprocess.Popen[str]:
        size = events.stat().st_size if events.is_file() else 0
        running = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        wait_for(lambda: events.is_file() and events.stat().st_size > size + 2000)
        return running

    stopped = begin()
    stopped.send_signal(signal.SIGINT)
    _, result = stopped.communicate(timeout=60)
    assert stopped.returncode == 130
    assert "SIGINT" in result
    assert "cascadezoo sweep sweep.json -o out" in result
    assert (
        "| `s0` | flow.v1 | pixelshuffle.v1 | - | stopped |"
        in (tmp_path / "out/RESULTS.md").read_text()
    )
    assert json.loads((tmp_path / "out/state.json").read_bytes())["s0"]["state"] == "stopped"

    killed = begin()
    assert len(processes("cascadezoo.sweep.watchdog", "cells/s0", str(tmp_path))) == 1
    killed.kill()
    killed.communicate(timeout=60)
    # Its cell notices, writes a checkpoint and exits.
    wait_for(lambda: not processes("cascadezoo.sweep.watchdog", str(tmp_path)))

    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^s0 +done", done.stdout, re.M)
    log = (tmp_path / "out/cells/s0.log").read_text()
    first, second = (int(at) for at in re.findall(r"resumed at step (\d+)", log))
    assert 0 < first < second < 400
