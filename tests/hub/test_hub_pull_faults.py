"""Pulling with faults: no wrong byte is ever returned, and errors have a hint."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from errors_help import raises
from hub_server import Fault
from pull_cases import REPO, WEIGHTS, changed, contents, lines, working_files

from cascadezoo.errors import CascadezooError, HubUnavailableError, ModelError
from cascadezoo.hub import fetch
from cascadezoo.hub.locate import locate
from cascadezoo.hub.pull import pull


@pytest.fixture
def repo(hub, files):
    made = hub.make_repo(REPO, files)
    hub.clear()
    return made


@pytest.fixture(autouse=True)
def quick(workdir, monkeypatch):
    monkeypatch.setattr(fetch, "_WAITS", (0.02, 0.05))  # seconds


ANY = ("config.json", WEIGHTS, "metrics.json", "README.md")


def gets(hub, name):
    """How often the body of a file was sent; the CDN sends large ones."""
    return sum(r.method == "GET" and r.status == 200 and name in r.path for r in hub.requests)


@pytest.mark.parametrize("name", ANY)
@pytest.mark.parametrize("place", [0, 40, 10**9])
def test_flipped_bit_is_detected_and_the_file_downloaded_again(hub, repo, files, name, place):
    hub.fail(Fault("flip", f"GET .*{name}", after_bytes=place))
    assert contents(locate(REPO)) == files
    assert len(hub.fired) == 1
    bodies = [r for r in hub.requests if r.method == "GET" and r.status == 200 and name in r.path]
    assert len(bodies) == 2


@pytest.mark.parametrize("name", ANY)
def test_persistent_damage_fails_the_pull(hub, repo, files, name, tmp_path):
    hub.fail(Fault("flip", f"GET .*{name}", times=9, after_bytes=20))
    with raises(ModelError, "model-remote-damaged") as raised:
        pull(REPO, "out")
    assert name in raised.value.what
    assert raised.value.hint
    assert working_files() == []
    assert len(hub.fired) == 2
    # No part of the damaged file stays in the cache.
    sound = {hashlib.sha256(data).hexdigest() for data in files.values()}
    blobs = list((tmp_path / "hf_home/hub/models--org--lone/blobs").iterdir())
    assert {hashlib.sha256(b.read_bytes()).hexdigest() for b in blobs} <= sound
    hub.clear()
    hub.heal()
    assert contents(locate(REPO)) == files


def test_damaged_cache_is_repaired(hub, repo, files):
    folder = locate(REPO)
    for name in ANY:
        blob = (folder / name).resolve()
        blob.chmod(0o644)
        blob.write_bytes(files[name][:-1] + bytes([files[name][-1] ^ 1]))
        assert contents(locate(REPO)) == files
        blob.write_bytes(files[name][:-1])
        assert contents(locate(REPO)) == files
        blob.unlink()
        assert contents(locate(REPO)) == files
    (folder / WEIGHTS).resolve().write_bytes(b"x")
    hub.clear()
    with raises(ModelError, "model-cache-damaged") as raised:
        locate(REPO, offline=True)
    assert "--offline" in raised.value.hint
    assert hub.requests == []
    assert contents(locate(REPO)) == files


def test_repo_with_a_wrong_sha256(hub, files):
    """config.json and the file in the repo disagree: downloaded twice, then refused."""
    config = json.loads(files["config.json"])
    config["files"]["metrics.json"]["sha256"] = "0" * 64
    hub.make_repo(REPO, changed(files, files=config["files"]))
    with raises(ModelError, "model-remote-damaged", name="metrics.json"):
        locate(REPO)
    assert gets(hub, "metrics.json") == 2


def test_foreign_links_in_the_cache_are_not_followed(hub, repo, files, tmp_path):
    """Their targets are neither read nor deleted."""
    secret = tmp_path / "secret"
    secret.write_bytes(files[WEIGHTS])
    folder = locate(REPO)
    for target in (secret, os.path.relpath(secret, (folder / WEIGHTS).parent)):
        (folder / WEIGHTS).unlink()
        (folder / WEIGHTS).symlink_to(target)
        with raises(ModelError, "model-cache-damaged"):
            locate(REPO, offline=True)
        assert contents(locate(REPO)) == files
        assert (folder / WEIGHTS).resolve().parent == folder.parents[1] / "blobs"
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to(secret)
    assert contents(locate(REPO)) == files
    assert secret.read_bytes() == files[WEIGHTS]


# --- temporary failures


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
@pytest.mark.parametrize(
    "fault", [{"kind": "status", "status": 503}, {"kind": "cut", "after_bytes": 30}]
)
def test_one_failure_is_retried(hub, repo, files, method, name, fault):
    hub.fail(Fault(match=f"{method} .*{name}", **fault))
    assert contents(locate(REPO)) == files
    assert len(hub.fired) == 1


@pytest.mark.parametrize("match", ["HEAD .*config.json", f"GET .*{WEIGHTS}"])
def test_retry_after_is_respected(hub, repo, files, match):
    hub.fail(Fault("status", match, status=429, headers={"Retry-After": "1"}))
    began = time.monotonic()
    assert contents(locate(REPO)) == files
    assert time.monotonic() - began >= 1
    assert len(hub.fired) == 1


def test_long_retry_after_fails(hub, repo):
    hub.fail(Fault("status", "HEAD", times=9, status=429, headers={"Retry-After": "3600"}))
    began = time.monotonic()
    with raises(
        HubUnavailableError,
        "hub-unavailable-wait",
    ) as raised:
        locate(REPO)
    assert time.monotonic() - began < 10
    assert raised.value.hint


@pytest.mark.parametrize("match", ["HEAD .*config.json", "GET .*config.json", f"GET .*{WEIGHTS}"])
def test_persistent_failure(hub, repo, files, match):
    hub.fail(Fault("status", match, times=99, status=503))
    began = time.monotonic()
    with raises(HubUnavailableError, "hub-unavailable-busy") as raised:
        pull(REPO, "out")
    assert time.monotonic() - began < 15
    assert raised.value.hint
    assert raised.value.exit_code == 1
    assert working_files() == []
    hub.clear()
    hub.heal()
    # Files that had arrived are not downloaded again.
    assert contents(pull(REPO, "out").folder) == files
    again = {line.rpartition("/")[2] for line in lines(hub) if line.startswith("GET")}
    assert ("config.json" in again) == ("config.json" in match)


# --- interrupted


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted_pull_leaves_no_partial_copy(hub, repo, files, sent, tmp_path):
    hub.fail(Fault("slow", f"GET .*{WEIGHTS}", after_bytes=100, seconds=60.0))
    process = subprocess.Popen(
        [sys.executable, "-m", "cascadezoo", "pull", REPO, "--to", "out"],
        env={**os.environ, **hub.env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 30
    while not hub.fired and time.monotonic() < deadline:
        time.sleep(0.02)
    assert hub.fired
    time.sleep(0.2)
    process.send_signal(sent)
    result = process.communicate(timeout=30)
    assert process.returncode == (-9 if sent == signal.SIGKILL else 130), result
    assert "Traceback" not in result[1]
    assert working_files() == []
    hub.heal()
    assert contents(pull(REPO, "out").folder) == files


# --- random faults


def _faults(rng):
    """One to three faults of random kinds, requests and bytes."""
    for _ in range(rng.randint(1, 3)):
        kind = rng.choice(["status", "status", "cut", "flip", "flip", "slow"])
        method = "GET" if kind == "flip" else rng.choice(["HEAD", "GET"])
        yield Fault(
            kind,
            f"{method} .*{rng.choice([*ANY, ''])}",
            times=rng.choice([1, 1, 1, 2, 3]),
            status=rng.choice([500, 502, 503, 504, 429, 408]),
            headers=rng.choice([{}, {"Retry-After": "0"}, {"Retry-After": "nonsense"}]),
            after_bytes=rng.choice([0, 1, rng.randint(0, 300), rng.randint(0, 20_000)]),
            seconds=0.05,
        )


@pytest.mark.slow
def test_hundred_pulls_with_random_faults(hub, repo, files, monkeypatch, tmp_path):
    """No corrupt loads, no errors other than cascadezoo's, and most pulls succeed."""
    from cascadezoo import Cascade

    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    true = Cascade.from_pretrained(pull(REPO, "true").folder).sample(1, seed=0)
    rng = random.Random(20240817)
    fired = loads = failures = 0
    for turn in range(100):
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "caches" / str(turn // 2)))
        hub.clear()
        for fault in _faults(rng):
            hub.fail(fault)
        try:
            folder = locate(REPO)
            assert contents(folder) == files
            assert Cascade.from_pretrained(folder).sample(1, seed=0).equal(true)
            loads += 1
        except CascadezooError as error:
            assert error.hint
            failures += 1
        fired += len(hub.fired)
        hub.heal()
    assert loads + failures == 100
    assert loads >= 60, (loads, failures)
    assert fired >= 100
