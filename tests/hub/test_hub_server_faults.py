"""The local Hub with denied requests, faults and other processes, by the real client and ``hf``."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import sys
import threading
import time
from pathlib import Path

import pytest
from hub_client import FILES, ID, WEIGHTS, added, download, raw, run
from hub_server import Fault, LocalHub
from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import disable_progress_bars, enable_progress_bars


@pytest.fixture(autouse=True)
def _quiet():
    disable_progress_bars()
    yield
    enable_progress_bars()


@pytest.fixture
def api(hub: LocalHub) -> HfApi:
    return HfApi(endpoint=hub.url, token=hub.token)


# --- access -------------------------------------------------------------------------------------


def test_private_repo_is_hidden(hub, api):
    hub.make_repo(ID, FILES, private=True)
    assert download(hub, "config.json") == FILES["config.json"]
    for token, status in ((False, 401), (hub.other_token, 404)):
        other = HfApi(endpoint=hub.url, token=token)
        with pytest.raises(RepositoryNotFoundError) as refused:
            other.model_info(ID)
        assert refused.value.response.status_code == status
        with pytest.raises(RepositoryNotFoundError):
            download(hub, "README.md", token=token)


def test_missing_repos_revisions_and_files(hub, api):
    hub.make_repo(ID, FILES)
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("org/nothing")
    with pytest.raises(RevisionNotFoundError, match="v9"):
        api.model_info(ID, revision="v9")
    with pytest.raises(RevisionNotFoundError):
        download(hub, "config.json", revision="v9")
    with pytest.raises(EntryNotFoundError) as missing:
        download(hub, "nothing.json")
    assert missing.value.response.headers["X-Repo-Commit"] == hub.repos[ID].head().oid
    with pytest.raises(RepositoryNotFoundError):
        api.create_commit("org/nothing", added(FILES), commit_message="first")
    with pytest.raises(RevisionNotFoundError):
        api.create_commit(ID, added({"a": b"a"}), commit_message="first", revision="v9")


def test_gated_files_need_access(hub, api):
    repo = hub.make_repo(ID, FILES, gated="manual")
    assert api.model_info(ID).gated == "manual"
    for token, status in ((False, 401), (hub.other_token, 403)):
        assert HfApi(endpoint=hub.url, token=token).model_info(ID).sha
        with pytest.raises(GatedRepoError) as refused:
            download(hub, "config.json", token=token)
        assert refused.value.response.status_code == status
    repo.allowed.add("stranger")
    assert download(hub, "config.json", token=hub.other_token) == FILES["config.json"]


def test_invalid_and_insufficient_tokens(hub):
    hub.make_repo(ID, FILES)
    bad = HfApi(endpoint=hub.url, token="hf_" + "x" * 34)
    with pytest.raises(HfHubHTTPError) as invalid:
        bad.whoami()
    assert invalid.value.response.status_code == 401
    with pytest.raises(HfHubHTTPError) as invalid:
        bad.model_info(ID)
    assert invalid.value.response.status_code == 401
    assert not isinstance(invalid.value, RepositoryNotFoundError)
    for token in (hub.read_token, hub.other_token):
        client = HfApi(endpoint=hub.url, token=token)
        with pytest.raises(HfHubHTTPError, match="403"):
            client.create_commit(ID, added({"a": b"a"}), commit_message="first")
        with pytest.raises(HfHubHTTPError, match="403"):
            client.create_repo("foreign/name")
    assert len(hub.repos[ID].commits) == 2
    hub.repos[ID].disabled = True
    with pytest.raises(DisabledRepoError):
        HfApi(endpoint=hub.url, token=hub.token).model_info(ID)


# --- the hf command, and other processes --------------------------------------------------------


def test_hf_upload_and_download(hub, tmp_path):
    source = tmp_path / "model"
    for path, content in FILES.items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_bytes(content)
    hf = str(Path(sys.executable).parent / "hf")
    done = run(hub, hf, "upload", ID, str(source), "--commit-message", "by hand")
    assert done.returncode == 0, done.stderr
    repo = hub.repos[ID]
    assert [c.message for c in repo.commits] == ["initial commit", "by hand"]
    assert {p: c for p, c in repo.head().files.items() if p != ".gitattributes"} == FILES
    done = run(hub, hf, "download", ID, "--local-dir", str(tmp_path / "copy"))
    assert done.returncode == 0, done.stderr
    assert all((tmp_path / "copy" / p).read_bytes() == c for p, c in FILES.items())
    missing = run(hub, hf, "download", "org/nothing")
    assert missing.returncode == 1
    assert "org/nothing" in missing.stderr


SCRIPT = """
import json, sys
from huggingface_hub import CommitOperationAdd, create_commit, create_repo, snapshot_download
create_repo("org/name")
files = [CommitOperationAdd("config.json", b"{}"), CommitOperationAdd("w.safetensors", b"w" * 999)]
try:
    done = create_commit("org/name", files, commit_message="first")
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
print(json.dumps([done.oid, snapshot_download("org/name")]))
"""


def test_environment_configures_another_process(hub):
    done = run(hub, sys.executable, "-c", SCRIPT)
    assert done.returncode == 0, done.stderr
    oid, folder = json.loads(done.stdout)
    assert oid == hub.repos[ID].head().oid
    assert Path(folder).is_relative_to(hub.home)
    assert (Path(folder) / "w.safetensors").read_bytes() == b"w" * 999


def test_client_with_xet_cannot_upload_to_a_server_without_xet(hub):
    """The reason why hub.env disables Xet."""
    pytest.importorskip("hf_xet")
    done = run(hub, sys.executable, "-c", SCRIPT, HF_HUB_DISABLE_XET="0")
    assert done.returncode == 1
    assert {r.status for r in hub.seen("xet-write-token")} == {404}
    assert not hub.seen("objects/batch")
    assert len(hub.repos[ID].commits) == 1


# --- faults -------------------------------------------------------------------------------------


def test_client_waits_for_a_busy_server(hub, api):
    repo = hub.make_repo(ID)
    hub.fail(Fault("status", "/preupload/", status=429, headers={"Retry-After": "0"}))
    start = time.monotonic()
    api.create_commit(ID, added(FILES), commit_message="first")
    assert time.monotonic() - start >= 1  # the client adds a second
    assert [r.status for r in hub.seen("/preupload/")] == [429, 200]
    assert [f.status for f, _ in hub.fired] == [429]
    assert len(repo.commits) == 2


def test_fault_fires_the_set_number_of_times(hub, api):
    repo = hub.make_repo(ID, FILES)
    hub.fail(Fault("status", f"GET /api/models/{ID}", times=2, body=b"<html>busy</html>"))
    for _ in range(2):
        with pytest.raises(HfHubHTTPError, match="503"):
            api.model_info(ID)
    assert api.model_info(ID).sha == repo.head().oid
    hub.fail(Fault("status", "/commit/", times=9))
    with pytest.raises(HfHubHTTPError, match="503"):
        api.create_commit(ID, added({"a": b"a"}), commit_message="first")
    assert len(repo.commits) == 2
    hub.heal()
    api.create_commit(ID, added({"a": b"a"}), commit_message="first")
    assert len(repo.commits) == 3
    with pytest.raises(re.error):
        hub.fail(Fault("status", "("))


def test_cut_download_is_resumed(hub):
    hub.make_repo(ID, FILES)
    hub.fail(Fault("cut", "^GET /cdn/", after_bytes=100_000))
    assert download(hub, "stages/base.safetensors") == WEIGHTS
    assert [r.status for r in hub.seen("^GET /cdn/")] == [None, 200]


def test_cut_head_request_has_no_response(hub):
    hub.make_repo(ID, FILES)
    hub.fail(Fault("cut", "^HEAD ", times=9))
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        raw(hub, "HEAD", f"/{ID}/resolve/main/config.json")
    assert hub.requests[-1].status is None


def test_cut_upload_is_discarded(hub, api):
    repo = hub.make_repo(ID)
    hub.fail(Fault("cut", "^PUT /lfs/", after_bytes=1000))
    hub.fail(Fault("cut", "/commit/", after_bytes=20))
    with pytest.raises(Exception, match=r".") as broken:
        api.create_commit(ID, added(FILES), commit_message="first")
    assert "httpx" in type(broken.value).__module__
    assert [r.size for r in hub.seen("^PUT ")] == [1000, len(WEIGHTS)]  # the client tried again
    assert [r.status for r in hub.seen("/commit/")] == [None]
    assert len(repo.commits) == 1
    assert set(repo.objects) >= {hashlib.sha256(WEIGHTS).hexdigest()}
    hub.clear()
    api.create_commit(ID, added(FILES), commit_message="first")
    assert not hub.seen("^PUT ")


def test_client_does_not_detect_a_flipped_byte(hub):
    hub.make_repo(ID, FILES)
    hub.fail(Fault("flip", r"GET .*base\.safetensors", after_bytes=300))
    spoilt = download(hub, "stages/base.safetensors")
    assert [i for i, (a, b) in enumerate(zip(spoilt, WEIGHTS, strict=True)) if a != b] == [300]
    assert download(hub, "stages/base.safetensors") == spoilt  # from the cache
    assert download(hub, "stages/base.safetensors", force_download=True) == WEIGHTS


def test_refused_object_makes_no_commit(hub, api):
    repo = hub.make_repo(ID)
    hub.fail(Fault("refuse-lfs", "objects/batch", status=422))
    with pytest.raises(ValueError, match="This object is refused"):
        api.create_commit(ID, added(FILES), commit_message="first")
    hub.fail(Fault("refuse-lfs", "^PUT ", status=403))
    with pytest.raises(RuntimeError, match="stages/base.safetensors"):
        api.create_commit(ID, added(FILES), commit_message="first")
    hub.fail(Fault("refuse-lfs", "/verify", status=422))
    with pytest.raises(RuntimeError, match="stages/base.safetensors"):
        api.create_commit(ID, added(FILES), commit_message="first")
    assert len(repo.commits) == 1
    assert len(hub.fired) == 3


def test_commit_with_a_lost_response_is_made(hub, api):
    repo = hub.make_repo(ID)
    hub.fail(Fault("lost-response", "/commit/"))
    with pytest.raises(Exception, match=r".") as broken:
        api.create_commit(ID, added(FILES), commit_message="first")
    assert "httpx" in type(broken.value).__module__
    assert repo.head().message == "first"
    assert repo.head().files["config.json"] == FILES["config.json"]


def test_slow_responses_are_delayed(hub, monkeypatch):
    from huggingface_hub import constants

    hub.make_repo(ID, FILES)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    hub.fail(Fault("slow", "^GET /cdn/", after_bytes=1000, seconds=0.6))
    assert download(hub, "stages/base.safetensors") == WEIGHTS
    assert len(hub.seen("^GET /cdn/")) == 2  # it timed out once
    hub.fail(Fault("slow", "^HEAD ", seconds=5))
    connection = http.client.HTTPConnection(hub.url.removeprefix("http://"), timeout=0.2)
    connection.request("HEAD", f"/{ID}/resolve/main/README.md")
    with pytest.raises(TimeoutError):
        connection.getresponse()
    connection.close()


def test_server_stops_with_its_threads(tmp_path):
    before = threading.active_count()
    with LocalHub(tmp_path) as server:
        server.make_repo(ID, FILES)
        server.fail(Fault("slow", "README", seconds=60))
        host = server.url.removeprefix("http://")
        idle, waiting = (http.client.HTTPConnection(host, timeout=10) for _ in range(2))
        idle.request("GET", f"/api/models/{ID}")
        assert idle.getresponse().read()
        waiting.request("GET", f"/{ID}/resolve/main/README.md")
        while not server.fired:
            time.sleep(0.01)
        start = time.monotonic()
    assert time.monotonic() - start < 2
    assert threading.active_count() == before
    assert server.errors == []
    for connection in (idle, waiting):
        connection.close()


def test_fixture_is_new_for_each_test(hub):
    assert hub.repos == {}
    assert hub.requests == []
    url = hf_hub_url(ID, "config.json", endpoint=hub.url)
    assert url == f"{hub.url}/{ID}/resolve/main/config.json"
    assert os.environ["HF_ENDPOINT"] == hub.url
