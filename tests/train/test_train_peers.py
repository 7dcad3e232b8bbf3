"""The benchmark against other libraries runs, as ``tests/benchmarks/peers.py`` is called."""

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
    found = json.loads(path.read_text())
    ours, peer = found["contenders"]
    # The shape ddpm is there to be compared with exactly this network.
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
    ("asked", "said"),
    [
        ("diffuser", "no contender 'diffuser'"),
        ("diffusers@deep", "has no shape 'deep'"),
        ("cascadezoo:fp8", "strange precision"),
    ],
)
def test_what_cannot_be_run_is_refused(asked: str, said: str):
    done = run("--small", asked)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Hint: " in done.stderr
