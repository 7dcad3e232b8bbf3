"""Builds under torchrun: restarts, signals, errors that are printed once, two machines."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

HOURGLASS = 300.0


def spec(steps: int, **training: Any) -> dict[str, Any]:
    phase = {"name": "coarse", "train": ["coarse"], "steps": steps}
    config = {"size": 8, "channels": 8, "blocks": 1, "multipliers": [1]}
    return {
        "name": "many",
        "data": {"source": "shapes", "config": {"size": 8, "count": 64}, "num_classes": 8},
        "stages": [{"name": "coarse", "kind": "flow.v1", "config": config}],
        "training": {
            "batch_size": 8,
            "compile": False,
            "losses": [],
            "phases": [phase],
            **training,
        },
        "evaluation": {"metrics": []},
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


TWO = ("--standalone", "--nproc-per-node", "2")
FOLDER = "FOLDER_OF_THE_TEST"

Start = Callable[..., contextlib.AbstractContextManager[subprocess.Popen[str]]]


@pytest.fixture(name="started")
def _started(warm_python: str, tmp_path: Path) -> Start:
    """Starts `cascadezoo` under torchrun; the agent and its workers start fast."""

    def start(
        *arguments: object, options: tuple[str, ...] = TWO
    ) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
        launcher = [warm_python, "-m", "torch.distributed.run", *options, "-m", "cascadezoo"]
        env = {"PYTHON_EXEC": warm_python, FOLDER: str(tmp_path)}
        return running([*launcher, *map(str, arguments)], tmp_path, env)

    return start


@contextlib.contextmanager
def running(
    command: list[str], folder: Path, more: dict[str, str]
) -> Iterator[subprocess.Popen[str]]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CASCADEZOO_DEBUG": "0", **more}
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def workers_of(folder: Path) -> dict[int, int]:
    """The process ids of the workers of a test, by rank."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        with contextlib.suppress(OSError):
            rows = (entry / "environ").read_bytes().split(b"\0")
            names = dict(row.split(b"=", 1) for row in rows if b"=" in row)
            if b"RANK" in names and names.get(FOLDER.encode()) == str(folder).encode():
                found[int(names[b"RANK"])] = int(entry.name)
    return found


def wait_for_checkpoint(run: Path, agent: subprocess.Popen[str]) -> None:
    end = time.monotonic() + HOURGLASS
    while not list(run.glob("checkpoints/step-*")):
        assert agent.poll() is None, agent.communicate()
        assert time.monotonic() < end, "no checkpoint"
        time.sleep(0.2)


def events(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]


@pytest.fixture
def spec_path(tmp_path: Path) -> Path:
    path = tmp_path / "many.json"
    path.write_text(json.dumps(spec(400, checkpoint_seconds=0.5, log_steps=10)))
    return path


def test_a_killed_process_ends_all_within_30_seconds(
    tmp_path: Path, spec_path: Path, started: Start, warm_python: str
) -> None:
    run = tmp_path / "run"
    with started("build", spec_path, "-o", run, "--device", "cpu", "-q") as agent:
        wait_for_checkpoint(run, agent)
        workers = workers_of(tmp_path)
        os.kill(workers[1], signal.SIGKILL)
        began = time.monotonic()
        stderr = agent.communicate(timeout=HOURGLASS)[1]
        seconds = time.monotonic() - began
    assert agent.returncode != 0
    assert seconds < 30
    assert stderr.count("Error: process 0 of 2 lost the connection") <= 1
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers.values())
    # One process goes on alone.
    alone = [warm_python, "-m", "cascadezoo", "build", str(spec_path), "-o", str(run)]
    done = subprocess.run(
        [*alone, "--device", "cpu", "--json"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert [e["step"] for e in events(run) if e["event"] == "log"] == [*range(10, 401, 10)]


def test_torchrun_restarts_by_itself(tmp_path: Path, spec_path: Path, started: Start) -> None:
    """Also with --fresh, which begins anew only at the first start."""
    run = tmp_path / "run"
    line = ("build", spec_path, "-o", run, "--device", "cpu", "-q", "--fresh")
    with started(*line, options=(*TWO, "--max-restarts", "1")) as agent:
        wait_for_checkpoint(run, agent)
        os.kill(workers_of(tmp_path)[0], signal.SIGKILL)
        stderr = agent.communicate(timeout=HOURGLASS)[1]
    assert agent.returncode == 0, stderr
    assert json.loads((run / "run.json").read_text())["state"] == "done"
    assert [e["step"] for e in events(run) if e["event"] == "log"] == [*range(10, 401, 10)]


@pytest.mark.parametrize("whom", ["agent", "one"])
def test_a_signal_stops_all_at_one_step(
    tmp_path: Path, spec_path: Path, whom: str, started: Start
) -> None:
    run = tmp_path / "run"
    with started("build", spec_path, "-o", run, "--device", "cpu", "-q") as agent:
        wait_for_checkpoint(run, agent)
        workers = workers_of(tmp_path)
        os.kill(agent.pid if whom == "agent" else workers[1], signal.SIGTERM)
        stderr = agent.communicate(timeout=HOURGLASS)[1]
    assert stderr.count("Error: stopped by SIGTERM in phase 'coarse' after step") == 1, stderr
    assert "lost the connection" not in stderr


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        (("training.batch_size=9",), "Error: 2 processes cannot split a batch of 9 images evenly"),
        (("training.parallel=zero",), "training.parallel"),
    ],
)
def test_an_error_of_all_processes_is_printed_once(
    tmp_path: Path, spec_path: Path, settings: tuple[str, ...], shown: str, started: Start
) -> None:
    changes = [part for setting in settings for part in ("--set", setting)]
    line = ("build", spec_path, "-o", tmp_path / "run", "--device", "cpu", "-q")
    with started(*line, *changes) as agent:
        stderr = agent.communicate(timeout=HOURGLASS)[1]
    assert agent.returncode != 0
    assert len(re.findall("^Error: ", stderr, re.MULTILINE)) == 1, stderr
    assert shown in stderr


def test_two_agents_train_as_two_machines(tmp_path: Path, spec_path: Path, started: Start) -> None:
    """Two agents on loopback; then both with different specs, which is an error printed once."""

    def agents(name: str, *paths: Path) -> list[subprocess.Popen[str]]:
        port = free_port()
        made = []
        for path in paths:
            options = ("--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d")
            options += ("--rdzv-endpoint", f"localhost:{port}", "--rdzv-id", name)
            line = ("build", path, "-o", tmp_path / name, "--device", "cpu", "-q")
            made.append(stack.enter_context(started(*line, options=options)))
        return made

    one, other = tmp_path / "one.json", tmp_path / "other.json"
    one.write_text(json.dumps(spec(40, log_steps=10)))
    other.write_text(json.dumps(spec(50, log_steps=10)))
    with contextlib.ExitStack() as stack:
        pair = agents("same", one, one)
        outputs = [agent.communicate(timeout=HOURGLASS)[1] for agent in pair]
        assert [agent.returncode for agent in pair] == [0, 0], outputs
        assert json.loads((tmp_path / "same" / "run.json").read_text())["state"] == "done"
        pair = agents("differ", one, other)
        outputs = [agent.communicate(timeout=HOURGLASS)[1] for agent in pair]
    assert all(agent.returncode != 0 for agent in pair)
    printed = "\n".join(outputs)
    assert len(re.findall("^Error: ", printed, re.MULTILINE)) == 1, outputs
    assert "disagree on the spec" in "".join(outputs)
