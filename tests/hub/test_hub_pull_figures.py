"""The cost of a pulled model, measured by ``tests/benchmarks/hub.py``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "hub.py"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs VmHWM of /proc")
def test_requests_time_and_memory():
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), "--json", "--channels", "112", "--pairs", "15"],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    results = json.loads(done.stdout)
    assert results["bytes"] > 90e6
    requests = [results[f"{way}_requests"] for way in ("local", "branch", "pinned")]
    assert requests == [0, 1, 0]
    memory = [results[f"{way}_memory_ratio"] for way in ("local", "branch", "pinned")]
    assert max(memory) <= 1.2, results
    assert results["pinned_ratio"] <= 1.3, results
    assert results["branch_ratio"] <= 1.3, results
