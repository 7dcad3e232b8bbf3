"""The benchmark against other libraries, ``tests/benchmarks/peers.py``, runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "peers.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARK), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


@pytest.mark.slow
def test_both_train_and_sample(tmp_path: Path):
    path = tmp_path / "peers.json"
    done = run("--small", "--json", str(path), "cascadezoo@ddpm:bf16", "diffusers")
    assert done.returncode == 0, done.stderr
    results = json.loads(path.read_text())
    ours, peer = results["contenders"]
    # The shape ddpm matches exactly this network.
    assert ours["parameters"] == peer["parameters"] == 2_245_763
    assert ours["gflop"] == pytest.approx(peer["gflop"], rel=1e-3)
    for contender in (ours, peer):
        assert contender["failure"] is None
        (block,) = contender["training_blocks_wall_cpu"]["2"]
        assert min(block) > 0
        (block,) = contender["sampling_blocks_wall_cpu"]
        assert min(block) > 0
    assert "| cascadezoo@ddpm bf16 | diffusers fp32 | 2: " in done.stdout


@pytest.mark.parametrize(
    ("contender", "shown"),
    [
        ("diffuser", "'diffuser'"),
        ("diffusers@deep", "'deep'"),
        ("cascadezoo:fp8", "'cascadezoo:fp8'"),
    ],
)
def test_invalid_contenders_are_refused(contender: str, shown: str):
    done = run("--small", contender)
    assert done.returncode == 2
    assert shown in done.stderr
    assert "Hint: " in done.stderr
