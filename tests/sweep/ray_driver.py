"""A sweep on a real Ray cluster of two nodes, reported on stdout; run by test_sweep_ray.py.

The worker of one cell is killed while it builds, and the sweep continues. A second sweep is
interrupted and resumed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from sweep_cases import axis, base, parent, processes, sweep, wait_for

from cascadezoo.errors import StoppedError
from cascadezoo.sweep.run_sweep import run_sweep


def main(out: Path) -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    try:
        report = _sweeps(out, cluster.address)
    finally:
        cluster.shutdown()
    print(json.dumps(report))


def _sweeps(out: Path, address: str) -> dict[str, object]:
    long = base()
    long["training"]["log_steps"] = 1
    data = sweep(
        axis("steps", "training.phases.first.steps", {"few": 4, "many": 100_000, "some": 5}),
        axis("seed", "seed", [0]),
        name="ray",
        base=long,
    )
    killed: list[int] = []
    lines: list[str] = []

    def kill_worker(line: str) -> None:
        lines.append(line)
        if "many-s0: started" in line:
            run = str(out / "cells" / "many-s0")
            (build,) = wait_for(lambda: processes("cascadezoo.sweep.watchdog", run))
            wait_for(lambda: '"event": "log"' in _text(out / "cells/many-s0/events.jsonl"))
            killed.extend([build, parent(build)])
            os.kill(parent(build), signal.SIGKILL)

    results = run_sweep(data, out, executor="ray", ray_address=address, progress=kill_worker)
    wait_for(lambda: not processes("cascadezoo.sweep.watchdog", str(out)))
    after = {"states": {c.name: c.state for c in results.cells}, "error": results.cells[1].error}

    def interrupt(line: str) -> None:
        if "many-s0: started" in line:
            events = out / "cells/many-s0/events.jsonl"
            size = events.stat().st_size
            wait_for(lambda: events.stat().st_size > size + 200)
            os.kill(os.getpid(), signal.SIGINT)

    try:
        run_sweep(data, out, executor="ray", ray_address=address, progress=interrupt)
    except StoppedError as error:
        after |= {"interrupted": error.fields["reason"]}
    written = json.loads((out / "results.json").read_bytes())
    after |= {"stopped": {c["name"]: c["state"] for c in written["cells"]}}
    return {**after, "killed": killed, "lines": lines}


def _text(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


if __name__ == "__main__":
    main(Path(sys.argv[1]))
