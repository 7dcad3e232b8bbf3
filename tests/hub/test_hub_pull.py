"""Pulling over HTTP from the local Hub, with the real client: what arrives and what it costs."""

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
from pull_cases import REPO, WEIGHTS, changed, contents, here, lines, make_files, record

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
def quick(away, monkeypatch):
    """No folder of the checkout can be taken for a repo, and nobody waits for long."""
    monkeypatch.setattr(fetch, "_WAITS", (0.02, 0.05))


# --- what arrives


def test_only_the_files_of_the_layout_arrive(hub, repo, files, tmp_path):
    done = pull(REPO)
    assert contents(done.folder) == files
    assert done.folder == tmp_path / "hf_home/hub/models--org--lone/snapshots" / done.commit
    assert (done.repo, done.commit, done.name) == (REPO, repo.branches["main"], "lone")
    assert done.files == {name: len(data) for name, data in files.items()}
    assert not [
        line for line in lines(hub) if "pickle" in line or "notes" in line or ".bin" in line
    ]
    assert repo.downloads >= 1  # the root config.json was asked for
    # Other programs find the files where they look for them.
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(REPO, WEIGHTS, cache_dir=done.folder.parents[2])
    assert found == str(done.folder / WEIGHTS)


def test_from_pretrained_takes_every_form(hub, repo, files, tmp_path):
    (tmp_path / "local").mkdir()
    for name, data in files.items():
        (tmp_path / "local" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "local" / name).write_bytes(data)
    true = Cascade.from_pretrained(tmp_path / "local").sample(2, seed=3)
    repo.tags["v1"] = repo.branches["main"]
    for reference in (REPO, f"hf://{REPO}", f"{REPO}@v1", f"{REPO}@{repo.branches['main']}"):
        assert Cascade.from_pretrained(reference).sample(2, seed=3).equal(true)


def test_a_branch_that_moves_is_followed_and_the_older_commit_stays(hub, repo, files, newer):
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
    """The branch moves right after it was resolved: all files are of the first commit."""
    old = repo.branches["main"]
    hub.before(r"GET .*/config\.json", lambda: repo.commit(newer))
    done = pull(REPO)
    assert done.commit == old
    assert contents(done.folder) == files
    asked = [line for line in lines(hub) if "/resolve/main/" in line]
    assert asked == [f"HEAD /{REPO}/resolve/main/config.json"]


def test_branches_tags_pull_requests_and_commits(hub, repo, files, newer):
    repo.commit(newer, pull=True)
    repo.tags["v1"] = repo.branches["main"]
    repo.branches["dev/next"] = repo.branches["main"]
    assert contents(pull(f"{REPO}@refs/pr/1").folder) == newer
    for revision in ("v1", "dev/next", "main"):
        assert contents(pull(REPO, revision=revision).folder) == files
        assert locate(REPO, revision, offline=True) == pull(REPO).folder
    with pytest.raises(HubNotFoundError) as raised:
        pull(REPO, revision="v2")
    assert raised.value.hint


# --- requests


def test_requests_of_a_cached_model(hub, repo):
    commit = pull(REPO).commit
    hub.clear()
    locate(REPO)
    assert lines(hub) == [f"HEAD /{REPO}/resolve/main/config.json"]
    hub.clear()
    locate(f"{REPO}@{commit}")
    locate(REPO, offline=True)
    locate(f"{REPO}@{commit}", offline=True)
    assert lines(hub) == []


def test_requests_of_a_branch_after_its_commit_was_pulled(hub, repo):
    locate(REPO, repo.branches["main"])
    hub.clear()
    locate(REPO)
    assert len(hub.requests) == 1
    hub.clear()
    locate(REPO, offline=True)
    assert hub.requests == []


def test_what_the_hf_command_fetched_is_taken(hub, repo, files):
    """Also where other files of the repo lie beside it: they are never opened."""
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


def test_offline_is_honoured(hub, repo, monkeypatch):
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
def test_the_cache_is_where_the_environment_says(hub, repo, name, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("THERE", str(tmp_path))
    monkeypatch.setenv(name, "$THERE/elsewhere")
    home = tmp_path / "elsewhere" / ("hub" if name == "HF_HOME" else "")
    assert pull(REPO).folder.parents[2] == home


def test_private_and_gated_repos(hub, files, monkeypatch):
    hub.make_repo("org/secret", files, private=True)
    hub.make_repo("foreign/gated", files, gated="auto")
    assert pull("org/secret").name == "lone"  # with HF_TOKEN
    with pytest.raises(HubDeniedError) as raised:
        pull("foreign/gated")
    assert "gated" in raised.value.what
    monkeypatch.delenv("HF_TOKEN")
    shutil.rmtree(locate("org/secret", offline=True).parents[1])
    with pytest.raises((HubDeniedError, HubNotFoundError)) as raised:
        pull("org/secret")
    assert "hf auth login" in raised.value.hint
    assert hub.token not in str(raised.value)


def test_the_token_is_sent_to_the_hub_alone(hub, repo):
    pull(REPO)
    sent = {r.path.startswith("/cdn/") for r in hub.requests if "authorization" in r.headers}
    assert sent == {False}
    assert any(r.path.startswith("/cdn/") for r in hub.requests)


# --- what is no model


def test_repos_that_are_not_there(hub):
    with pytest.raises(HubNotFoundError) as raised:
        pull("org/nothing")
    assert "org/nothing" in raised.value.what
    assert raised.value.code == "hub-not-found-repo"
    with pytest.raises(HubNotFoundError) as raised:
        pull("hf://org/nothing")
    assert "folder" not in raised.value.what


def test_repos_that_hold_no_model(hub):
    hub.make_repo("org/empty", {"README.md": b"# hello\n"})
    hub.make_repo("org/bert", {"config.json": b'{"model_type": "bert"}', "model.safetensors": b""})
    with raises(HubNotFoundError, "hub-not-found-file"):
        pull("org/empty")
    hub.clear()
    with raises(ModelError, "model-config-foreign"):
        pull("org/bert")
    assert not [line for line in lines(hub) if "safetensors" in line]


def test_a_file_that_is_listed_but_not_there(hub, files):
    repo = hub.make_repo(REPO, files)
    repo.commit({}, deleted=[WEIGHTS])
    with raises(ModelError, "model-remote-incomplete", name=WEIGHTS):
        pull(REPO)


def test_cards_are_peoples_own(hub, files, tmp_path):
    """A card that was edited or deleted on the Hub is no fault; as the Hub has it, it arrives."""
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


def test_a_large_config_is_not_fetched(hub, files):
    hub.make_repo(REPO, {**files, "config.json": b'{"a": "' + b"x" * (1 << 20) + b'"}'})
    with raises(ModelError, "model-file-too-large", name="config.json", size=1048585):
        pull(REPO)
    assert [line.split()[0] for line in lines(hub)] == ["HEAD"]


def test_models_above_the_limit_are_not_fetched(hub, repo, files, monkeypatch):
    total = sum(len(data) for name, data in files.items() if name != "config.json")
    monkeypatch.setenv("CASCADEZOO_MAX_BYTES", str(total - 1))
    with raises(ModelError, "model-too-large", size=total) as raised:
        pull(REPO)
    assert raised.value.hint == f"CASCADEZOO_MAX_BYTES={total} cascadezoo pull org/lone allows it"
    assert not [line for line in lines(hub) if WEIGHTS in line]
    monkeypatch.setenv("CASCADEZOO_MAX_BYTES", str(total))
    pull(REPO)
    monkeypatch.setenv("CASCADEZOO_MAX_BYTES", "50GB")
    with raises(InputError, "input-limit-form"):
        pull(REPO)


@pytest.mark.parametrize("name", ["metrics.json", WEIGHTS])
def test_a_file_of_another_size_is_not_fetched(hub, files, name):
    hub.make_repo(REPO, {**files, name: files[name] + b" " * 5000})
    with raises(ModelError, "model-file-size"):
        pull(REPO)
    assert not [line for line in lines(hub) if line.startswith("GET") and name in line]


def test_a_stage_that_claims_too_much_is_not_fetched(hub, files):
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


def test_to_a_folder(hub, repo, files, newer, tmp_path):
    done = pull(REPO, "out")
    assert (done.changed, done.replaced, str(done)) == (True, False, "out")
    assert contents(done.folder) == files
    assert not any(p.is_symlink() for p in done.folder.rglob("*"))
    assert pull(REPO, "out").changed is False
    repo.commit(newer)
    done = pull(REPO, "out")
    assert (done.changed, done.replaced) == (True, True)
    assert contents(done.folder) == newer
    assert here() == ["out"]


def test_a_place_that_cannot_be_is_told_before_anything_is_fetched(hub, repo, tmp_path):
    (tmp_path / "work" / "full").mkdir()
    (tmp_path / "work" / "full" / "thesis.tex").write_text("years")
    (tmp_path / "work" / "file").write_text("x")
    for dest in ("full", "file", "file/below"):
        with pytest.raises(RunFolderError):
            pull(REPO, dest)
    assert hub.requests == []


# --- zoo


def test_a_zoo_model_is_held_against_its_entry(hub, repo, files, newer):
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


# --- when the Hub cannot be reached


def test_without_network_a_cached_branch_is_taken_and_that_is_told(hub, repo, caplog, monkeypatch):
    folder = locate(REPO)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert locate(REPO) == folder
    (result,) = [r.getMessage() for r in caplog.records if r.name == "cascadezoo.hub"]
    assert f"taking the copy that was pulled before, {folder.name}" in result
    with pytest.raises(HubUnavailableError) as raised:
        locate("org/other")
    assert raised.value.hint
    assert raised.value.exit_code == 1


def test_an_endpoint_that_is_no_hub(hub, repo, monkeypatch):
    hub.fail(Fault("status", "HEAD", times=9, status=200, body=b"<html>log in</html>"))
    with pytest.raises(HubUnavailableError) as raised:
        locate(REPO)
    assert "HF_ENDPOINT" in str(raised.value)


def test_from_pretrained_takes_a_revision_and_offline(hub, repo, files, newer):
    repo.tags["v1"] = repo.branches["main"]
    repo.commit(newer)
    first = Cascade.from_pretrained(REPO, revision="v1").sample(1, seed=0)
    second = Cascade.from_pretrained(REPO).sample(1, seed=0)
    assert not first.equal(second)
    hub.clear()
    assert Cascade.from_pretrained(REPO, revision="v1", offline=True).sample(1, seed=0).equal(first)
    assert hub.requests == []
