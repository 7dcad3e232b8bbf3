"""Pulling over HTTP from the local Hub with the real client: files and requests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from errors_help import raises
from hub_server import Fault
from pull_cases import REPO, WEIGHTS, changed, contents, lines, make_files, record, working_files

from cascadezoo import Cascade
from cascadezoo.errors import (
    HubDeniedError,
    HubNotFoundError,
    HubUnavailableError,
    InputError,
    ModelError,
    ModelReferenceError,
    RunFolderError,
)
from cascadezoo.hub import fetch
from cascadezoo.hub.locate import locate
from cascadezoo.hub.pull import pull, pull_hub
from cascadezoo.hub.refs import HubRef
from cascadezoo.zoo.manifest import FileRecord


@pytest.fixture(scope="module")
def newer(tmp_path_factory):
    return make_files(tmp_path_factory.mktemp("newer") / "model", seed=1)


@pytest.fixture
def repo(hub, files):
    made = hub.make_repo(REPO, {**files, "pytorch_model.bin": b"\x80pickle", "notes/a.txt": b"a"})
    hub.clear()
    return made


@pytest.fixture(autouse=True)
def quick(workdir, monkeypatch):
    """Use a current folder without other files, and short waits."""
    monkeypatch.setattr(fetch, "_WAITS", (0.02, 0.05))


# --- files


def test_only_model_files_are_downloaded(hub, repo, files, tmp_path):
    done = pull(REPO)
    assert contents(done.folder) == files
    assert done.folder == tmp_path / "hf_home/hub/models--org--lone/snapshots" / done.commit
    assert (done.repo, done.commit, done.name) == (REPO, repo.branches["main"], "lone")
    assert done.files == {name: len(data) for name, data in files.items()}
    assert not [
        line for line in lines(hub) if "pickle" in line or "notes" in line or ".bin" in line
    ]
    assert repo.downloads >= 1  # the root config.json was requested
    # Other programs find the files in the cache.
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(REPO, WEIGHTS, cache_dir=done.folder.parents[2])
    assert cached == str(done.folder / WEIGHTS)


def test_from_pretrained_accepts_every_form(hub, repo, files, tmp_path):
    (tmp_path / "local").mkdir()
    for name, data in files.items():
        (tmp_path / "local" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "local" / name).write_bytes(data)
    true = Cascade.from_pretrained(tmp_path / "local").sample(2, seed=3)
    repo.tags["v1"] = repo.branches["main"]
    for reference in (REPO, f"hf://{REPO}", f"{REPO}@v1", f"{REPO}@{repo.branches['main']}"):
        assert Cascade.from_pretrained(reference).sample(2, seed=3).equal(true)


def test_moved_branch_is_pulled_and_the_older_commit_kept(hub, repo, files, newer):
    first = pull(REPO)
    repo.commit(newer)
    second = pull(REPO)
    assert contents(second.folder) == newer
    assert contents(first.folder) == files
    assert pull(f"{REPO}@{first.commit}").folder == first.folder
    hub.clear()
    assert locate(REPO, offline=True) == second.folder
    assert hub.requests == []


def test_the_revision_is_resolved_once(hub, repo, files, newer):
    """The branch moves right after it was resolved: all files are from the first commit."""
    old = repo.branches["main"]
    hub.before(r"GET .*/config\.json", lambda: repo.commit(newer))
    done = pull(REPO)
    assert done.commit == old
    assert contents(done.folder) == files
    requests = [line for line in lines(hub) if "/resolve/main/" in line]
    assert requests == [f"HEAD /{REPO}/resolve/main/config.json"]


def test_branches_tags_pull_requests_and_commits(hub, repo, files, newer):
    repo.commit(newer, pull=True)
    repo.tags["v1"] = repo.branches["main"]
    repo.branches["dev/next"] = repo.branches["main"]
    assert contents(pull(f"{REPO}@refs/pr/1").folder) == newer
    for revision in ("v1", "dev/next", "main"):
        assert contents(pull(REPO, revision=revision).folder) == files
        assert locate(REPO, revision, offline=True) == pull(REPO).folder
    with raises(HubNotFoundError, "hub-not-found-revision") as raised:
        pull(REPO, revision="v2")
    assert raised.value.hint


# --- requests


def test_requests_for_a_cached_model(hub, repo):
    commit = pull(REPO).commit
    hub.clear()
    locate(REPO)
    assert lines(hub) == [f"HEAD /{REPO}/resolve/main/config.json"]
    hub.clear()
    locate(f"{REPO}@{commit}")
    locate(REPO, offline=True)
    locate(f"{REPO}@{commit}", offline=True)
    assert lines(hub) == []


def test_requests_for_a_branch_after_its_commit_was_pulled(hub, repo):
    locate(REPO, repo.branches["main"])
    hub.clear()
    locate(REPO)
    assert len(hub.requests) == 1
    hub.clear()
    locate(REPO, offline=True)
    assert hub.requests == []


def test_downloads_of_the_hf_command_are_used(hub, repo, files):
    """Also with other files of the repo beside the model, which are never opened."""
    subprocess.run(
        [shutil.which("hf", path=Path(sys.executable).parent), "download", REPO],
        env={**os.environ, **hub.env},
        check=True,
        capture_output=True,
    )
    hub.clear()
    done = pull(REPO)
    assert len(hub.requests) == 1
    assert (done.folder / "pytorch_model.bin").exists()
    assert set(done.files) == set(files)
    assert contents(pull(REPO, "out").folder) == files
    Cascade.from_pretrained(done.folder)


# --- settings


def test_offline_sends_no_request(hub, repo, monkeypatch):
    with raises(ModelReferenceError, "reference-offline") as e:
        locate(REPO, offline=True)
    assert "cascadezoo pull org/lone" in e.value.hint
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with raises(ModelReferenceError, "reference-offline"):
        Cascade.from_pretrained(REPO)
    assert hub.requests == []
    monkeypatch.delenv("HF_HUB_OFFLINE")
    folder = locate(REPO)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.clear()
    assert locate(REPO) == folder
    with raises(ModelReferenceError, "reference-offline"):
        locate(REPO, "other")
    (folder / WEIGHTS).unlink()
    with raises(ModelReferenceError, "reference-offline") as e:
        locate(REPO)
    assert WEIGHTS in e.value.what
    assert hub.requests == []


@pytest.mark.parametrize("name", ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME"])
def test_environment_sets_the_cache(hub, repo, name, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("THERE", str(tmp_path))
    monkeypatch.setenv(name, "$THERE/elsewhere")
    home = tmp_path / "elsewhere" / ("hub" if name == "HF_HOME" else "")
    assert pull(REPO).folder.parents[2] == home


def test_private_and_gated_repos(hub, files, monkeypatch):
    hub.make_repo("org/secret", files, private=True)
    hub.make_repo("foreign/gated", files, gated="auto")
    assert pull("org/secret").name == "lone"  # with HF_TOKEN
    with raises(HubDeniedError, "hub-denied-gated") as raised:
        pull("foreign/gated")
    assert "foreign/gated" in raised.value.what
    monkeypatch.delenv("HF_TOKEN")
    shutil.rmtree(locate("org/secret", offline=True).parents[1])
    with pytest.raises((HubDeniedError, HubNotFoundError)) as raised:
        pull("org/secret")
    assert "hf auth login" in raised.value.hint
    assert hub.token not in str(raised.value)


def test_token_is_sent_only_to_the_hub(hub, repo):
    pull(REPO)
    sent = {r.path.startswith("/cdn/") for r in hub.requests if "authorization" in r.headers}
    assert sent == {False}
    assert any(r.path.startswith("/cdn/") for r in hub.requests)


# --- repos without a valid model


def test_missing_repos(hub):
    with raises(HubNotFoundError, "hub-not-found-repo", name="org/nothing"):
        pull("org/nothing")  # could also be a folder
    with raises(HubNotFoundError, "hub-not-found-repo") as raised:
        pull("hf://org/nothing")
    assert raised.value.fields == {}


def test_repos_without_a_model(hub):
    hub.make_repo("org/empty", {"README.md": b"# hello\n"})
    hub.make_repo("org/bert", {"config.json": b'{"model_type": "bert"}', "model.safetensors": b""})
    with raises(HubNotFoundError, "hub-not-found-file"):
        pull("org/empty")
    hub.clear()
    with raises(ModelError, "model-config-foreign"):
        pull("org/bert")
    assert not [line for line in lines(hub) if "safetensors" in line]


def test_listed_file_is_missing(hub, files):
    repo = hub.make_repo(REPO, files)
    repo.commit({}, deleted=[WEIGHTS])
    with raises(ModelError, "model-remote-incomplete", name=WEIGHTS):
        pull(REPO)


def test_edited_or_deleted_card_is_accepted(hub, files, tmp_path):
    """A card that was edited or deleted on the Hub is not an error; it is pulled as it is."""
    repo = hub.make_repo(REPO, files)
    repo.commit({"README.md": b"# better said\n" * 50})
    assert (pull(REPO).folder / "README.md").read_bytes() == b"# better said\n" * 50
    assert (pull(REPO, "out").folder / "README.md").read_bytes() == b"# better said\n" * 50
    repo.commit({}, deleted=["README.md"])
    done = pull(REPO)
    assert "README.md" not in done.files
    assert contents(pull(REPO, "other").folder).keys() == files.keys() - {"README.md"}
    Cascade.from_pretrained(REPO)


# --- limits


def test_large_config_is_not_downloaded(hub, files):
    hub.make_repo(REPO, {**files, "config.json": b'{"a": "' + b"x" * (1 << 20) + b'"}'})
    with raises(ModelError, "model-file-too-large", name="config.json", size=1048585):
        pull(REPO)
    assert [line.split()[0] for line in lines(hub)] == ["HEAD"]


def test_models_above_the_limit_are_not_downloaded(hub, repo, files, monkeypatch):
    total = sum(len(data) for name, data in files.items() if name != "config.json")
    monkeypatch.setenv("CASCADEZOO_MAX_BYTES", str(total - 1))
    with raises(ModelError, "model-too-large", size=total) as raised:
        pull(REPO)
    assert f"CASCADEZOO_MAX_BYTES={total} cascadezoo pull org/lone" in raised.value.hint
    assert not [line for line in lines(hub) if WEIGHTS in line]
    monkeypatch.setenv("CASCADEZOO_MAX_BYTES", str(total))
    pull(REPO)
    monkeypatch.setenv("CASCADEZOO_MAX_BYTES", "50GB")
    with raises(InputError, "input-limit-form"):
        pull(REPO)


@pytest.mark.parametrize("name", ["metrics.json", WEIGHTS])
def test_file_of_another_size_is_not_downloaded(hub, files, name):
    hub.make_repo(REPO, {**files, name: files[name] + b" " * 5000})
    with raises(ModelError, "model-file-size"):
        pull(REPO)
    assert not [line for line in lines(hub) if line.startswith("GET") and name in line]


def test_stage_with_a_huge_size_is_not_downloaded(hub, files):
    config = json.loads(files["config.json"])
    config["files"][WEIGHTS]["size"] = 2**70
    hub.make_repo(REPO, changed(files, files=config["files"]))
    with raises(ModelError, "model-file-too-large"):
        pull(REPO)
    config["files"]["metrics.json"]["size"] = 17 << 20
    hub.make_repo("org/metrics", changed(files, files=config["files"]))
    with raises(ModelError, "model-file-too-large", name="metrics.json", size=17825792):
        pull("org/metrics")


# --- to a folder


def test_pull_to_a_folder(hub, repo, files, newer, tmp_path):
    done = pull(REPO, "out")
    assert (done.changed, done.replaced, str(done)) == (True, False, "out")
    assert contents(done.folder) == files
    assert not any(p.is_symlink() for p in done.folder.rglob("*"))
    assert pull(REPO, "out").changed is False
    repo.commit(newer)
    done = pull(REPO, "out")
    assert (done.changed, done.replaced) == (True, True)
    assert contents(done.folder) == newer
    assert working_files() == ["out"]


def test_invalid_folder_fails_before_any_request(hub, repo, tmp_path):
    (tmp_path / "work" / "full").mkdir()
    (tmp_path / "work" / "full" / "thesis.tex").write_text("years")
    (tmp_path / "work" / "file").write_text("x")
    for dest in ("full", "file", "file/below"):
        with pytest.raises(RunFolderError):
            pull(REPO, dest)
    assert hub.requests == []


# --- zoo


def test_zoo_model_is_compared_with_its_entry(hub, repo, files, newer):
    records = {
        name: FileRecord(**row)
        for name, row in {
            **json.loads(files["config.json"])["files"],
            "config.json": record(files["config.json"]),
        }.items()
    }
    ref = HubRef(REPO, repo.branches["main"])
    assert contents(pull_hub(ref, records=records)) == files
    hub.clear()
    pull_hub(ref, records=records)
    assert hub.requests == []
    other = {**records, WEIGHTS: FileRecord(sha256="0" * 64, size=1)}
    with raises(ModelError, "model-not-of-zoo", names=(WEIGHTS,)):
        pull_hub(ref, records=other)
    del other[WEIGHTS]
    with raises(ModelError, "model-not-of-zoo"):
        pull_hub(ref, records=other)
    other = {**records, "config.json": FileRecord(sha256="0" * 64, size=1)}
    with raises(ModelError, "model-remote-damaged", name="config.json"):
        pull_hub(ref, records=other)


# --- unavailable Hub


def test_cached_branch_is_used_without_network(hub, repo, caplog, monkeypatch):
    folder = locate(REPO)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert locate(REPO) == folder
    (warning,) = [r.getMessage() for r in caplog.records if r.name == "cascadezoo.hub"]
    assert folder.name in warning
    with raises(HubUnavailableError, "hub-unavailable-unreachable") as raised:
        locate("org/other")
    assert raised.value.hint
    assert raised.value.exit_code == 1


def test_endpoint_that_is_not_a_hub(hub, repo, monkeypatch):
    hub.fail(Fault("status", "HEAD", times=9, status=200, body=b"<html>log in</html>"))
    with raises(HubUnavailableError, "hub-unavailable-no-hub") as raised:
        locate(REPO)
    assert "HF_ENDPOINT" in str(raised.value)


def test_from_pretrained_accepts_revision_and_offline(hub, repo, files, newer):
    repo.tags["v1"] = repo.branches["main"]
    repo.commit(newer)
    first = Cascade.from_pretrained(REPO, revision="v1").sample(1, seed=0)
    second = Cascade.from_pretrained(REPO).sample(1, seed=0)
    assert not first.equal(second)
    hub.clear()
    assert Cascade.from_pretrained(REPO, revision="v1", offline=True).sample(1, seed=0).equal(first)
    assert hub.requests == []
