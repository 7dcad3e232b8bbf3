"""What a pulled model costs, as ``tests/benchmarks/hub.py`` measures it."""

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
    found = json.loads(done.stdout)
    assert found["bytes"] > 90e6
    requests = [found[f"{way}_requests"] for way in ("local", "branch", "pinned")]
    assert requests == [0, 1, 0]
    assert max(found[f"{way}_memory_ratio"] for way in ("local", "branch", "pinned")) <= 1.2, found
    assert found["pinned_ratio"] <= 1.3, found
    assert found["branch_ratio"] <= 1.3, found
