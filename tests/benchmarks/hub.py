"""The cost of a pulled model: requests, time compared with the same local folder, memory.

The Hub is the local one of ``tests/hub``. Prints medians of interleaved pairs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "hub"))
os.environ.setdefault("OMP_NUM_THREADS", "1")

SPEC = {
    "name": "large",
    "data": {"source": "shapes", "config": {"size": 16, "count": 64, "test_count": 32}},
    "stages": [{"name": "coarse", "kind": "flow.v1", "config": {"multipliers": [1, 2, 4]}}],
}

# Not ru_maxrss, because a process starts with the value of its parent.
MEMORY = """
import re, sys
from pathlib import Path
from cascadezoo import Cascade

def highest():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

Cascade.from_pretrained(sys.argv[1])  # a small model, so that imports are not measured
before = highest()
cascade = Cascade.from_pretrained(sys.argv[2])
total = sum(t.sum().item() for t in cascade.state_dict().values())  # loads every page
print(highest() - before)
"""


def seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def make(folder: Path, channels: int) -> dict[str, bytes]:
    """The files of an untrained model with this number of channels."""
    from cascadezoo import Cascade

    spec = json.loads(json.dumps(SPEC))
    spec["stages"][0]["config"]["channels"] = channels
    Cascade.from_spec(spec).save_pretrained(folder)
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def weights(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("stages/*/model.safetensors"))


def memory(small: str, large: str) -> int:
    """Growth of the peak memory of a process that loads a model, in bytes."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, small, large], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def measure(root: Path, channels: int, pairs: int) -> dict[str, float]:
    """Pull a model, and load it by each kind of reference."""
    from hub_server import LocalHub

    with LocalHub(root / "hf_home") as hub:
        os.environ.update(hub.env)
        os.environ["CASCADEZOO_CACHE"] = str(root / "cache")
        from cascadezoo import Cascade
        from cascadezoo.hub.pull import pull
        from cascadezoo.model_folder.verified_files import SETTLED

        local, small = root / "large", root / "small"
        make(small, 8)
        repo = hub.make_repo("org/large", make(local, channels))
        results: dict[str, float] = {"bytes": weights(local)}
        results["pull_seconds"] = seconds(lambda: pull("org/large"))
        pinned = f"org/large@{repo.branches['main']}"

        # A file counts as verified only if it has not changed for some time.
        time.sleep(SETTLED + 0.5)
        ways = {"local": str(local), "branch": "org/large", "pinned": pinned}
        for reference in ways.values():
            Cascade.from_pretrained(reference)
        for name, reference in ways.items():
            hub.clear()
            Cascade.from_pretrained(reference)
            results[f"{name}_requests"] = len(hub.requests)

        def load(reference: str) -> None:
            # Read every value, as the first sampling does, because loading may be lazy.
            for tensor in Cascade.from_pretrained(reference).state_dict().values():
                tensor.sum()

        rows: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(pairs):
            for name in (*ways, *ways)[turn % 3 : turn % 3 + 3]:
                rows[name].append(seconds(partial(load, ways[name])))
        for name, times in rows.items():
            results[f"{name}_ms"] = statistics.median(times) * 1000
            ratios = (a / b for a, b in zip(times, rows["local"], strict=True))
            results[f"{name}_ratio"] = statistics.median(ratios)
        os.environ["HF_HUB_OFFLINE"] = "1"
        for name, reference in ways.items():
            results[f"{name}_memory_ratio"] = memory(str(small), reference) / results["bytes"]
        del os.environ["HF_HUB_OFFLINE"]
    return results


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--channels", type=int, default=256, help="256 makes about 200 MB")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = measure(Path(folder), options.channels, options.pairs)
    if options.json:
        print(json.dumps(results))
        return
    print(f"{results['bytes'] / 1e6:.1f} MB of weights, pulled in {results['pull_seconds']:.2f} s")
    for name in ("local", "branch", "pinned"):
        print(
            f"{name:7} {results[f'{name}_requests']:.0f} requests, {results[f'{name}_ms']:7.1f} ms, "
            f"{results[f'{name}_ratio']:.2f} times local, "
            f"memory {results[f'{name}_memory_ratio']:.2f} times the weights"
        )


if __name__ == "__main__":
    main()
