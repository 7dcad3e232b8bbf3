"""``cascadezoo pull`` and similar commands against the local Hub, each in its own process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import Fault
from pull_cases import REPO, WEIGHTS, contents, working_files

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "hub.py"


@pytest.fixture
def repo(hub, files):
    made = hub.make_repo(REPO, files)
    hub.clear()
    return made


@pytest.fixture
def run(hub, tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")

    def run(*args, **env):
        return subprocess.run(
            [sys.executable, "-m", "cascadezoo", *map(str, args)],
            env={**os.environ, **hub.env, **env},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.mark.slow
def test_pull_then_sample(hub, repo, files, run):
    result = run("pull", REPO)
    assert result.returncode == 0, result.stderr
    commit = repo.branches["main"]
    assert result.stdout.startswith(f"pulled lone from {REPO}, commit {commit}: 4 files, ")
    assert result.stderr == f"Next: cascadezoo sample {REPO}\n"
    hub.clear()
    result = run("sample", REPO, "-n", "2", "--device", "cpu", "-q", "-o", "x.png")
    assert result.returncode == 0, result.stderr
    assert Path("x.png").is_file()
    assert len(hub.requests) == 1
    assert hub.requests[0].headers["user-agent"].startswith("cascadezoo/")
    result = run("pull", f"hf://{REPO}", "--to", "models/lone", "--offline", "--json")
    data = json.loads(result.stdout)
    assert (data["repo"], data["commit"], data["folder"]) == (REPO, commit, "models/lone")
    assert contents(Path("models/lone")) == files
    assert len(hub.requests) == 1


def test_failed_pull_shows_a_hint(hub, repo, run):
    hub.fail(Fault("flip", f"GET .*{WEIGHTS}", times=9))
    result = run("pull", REPO, "--to", "out")
    assert (result.returncode, result.stdout, working_files()) == (2, "", [])
    for value in (REPO, repo.branches["main"], WEIGHTS):
        assert value in result.stderr
    assert "\nHint: " in result.stderr
    hub.heal()
    result = run("pull", "org/nothing", "--json")
    assert (result.returncode, result.stdout) == (2, "")
    error = json.loads(result.stderr)["error"]
    assert error["code"] == "hub-not-found-repo"
    assert error["hint"]


@pytest.mark.slow
def test_token_is_never_shown(hub, repo, run):
    """Neither messages nor, with CASCADEZOO_DEBUG, tracebacks contain it."""
    for fault in ("status", "cut", "flip"):
        hub.fail(Fault(fault, "HEAD|GET", times=99, status=503))
        result = run("pull", REPO, CASCADEZOO_DEBUG="1")
        assert result.returncode != 0
        assert hub.token not in result.stdout + result.stderr
        hub.heal()


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
