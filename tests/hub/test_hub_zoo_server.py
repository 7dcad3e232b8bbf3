"""The zoo against the local Hub over HTTP: entries are pinned and verified, the Hub is searched."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from errors_help import raises
from hub_server import Fault

from cascadezoo.errors import (
    HubDeniedError,
    HubNotFoundError,
    HubUnavailableError,
    ModelError,
    ModelReferenceError,
)
from cascadezoo.hub.search import search
from cascadezoo.hub.zoo_models import verify, zoo_entry
from cascadezoo.zoo.list import bundled_folder, find

REPO = "someone/tiny"
WAIT = {"Retry-After": "120"}  # too long to wait, so the request fails at once
WEIGHTS = "stages/coarse/model.safetensors"


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """The files of the bundled model."""
    folder = bundled_folder(find("shapes-tiny"))
    assert folder is not None
    return {name: (folder / name).read_bytes() for name in find("shapes-tiny").files}


@pytest.fixture
def repo(hub, files):
    return hub.make_repo(REPO, files)


def run(hub, *args: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cascadezoo", "zoo", *map(str, args)],
        env=hub.env,
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


def downloads_of(hub, name: str) -> list[str]:
    return [r.path for r in hub.requests if r.method == "GET" and r.path.endswith(name)]


# --- add


def test_entry_is_pinned_and_describes_the_model(hub, repo) -> None:
    hub.clear()
    model = zoo_entry(f"hf://{REPO}")
    shipped = find("shapes-tiny")
    assert (model.repo, model.commit, model.bundled) == (REPO, repo.commits[-1].oid, False)
    pinned = {"bundled": True, "repo": None, "commit": None}
    assert model.model_copy(update=pinned) == shipped
    # The Hub states the sha256 of the weights, so they are not downloaded.
    assert not downloads_of(hub, ".safetensors")
    assert zoo_entry(REPO, name="other").name == "other"


def test_branch_or_tag_is_resolved_once(hub, repo, files) -> None:
    old = repo.commits[-1].oid
    repo.tags["v1"] = old
    model = zoo_entry(f"{REPO}@v1")
    assert model.commit == old
    new = hub.make_repo("someone/new", {**files, "README.md": b"---\nlicense: mit\n---\nnew\n"})
    assert zoo_entry("someone/new@main").commit == new.commits[-1].oid
    assert zoo_entry(f"{REPO}@{old}").commit == old


def test_pull_request_is_refused(hub, repo) -> None:
    with raises(ModelReferenceError, "reference-pull-request"):
        zoo_entry(f"{REPO}@refs/pr/1")


def test_repos_without_a_valid_entry(hub, files) -> None:
    hub.make_repo("a/empty", {"README.md": b"hello"})
    with raises(ModelError, "model-no-figures", name="config.json"):
        zoo_entry("a/empty")
    hub.make_repo("a/other", {**files, "config.json": b'{"model_type": "bert"}'})
    with raises(ModelError, "model-config-foreign"):
        zoo_entry("a/other")
    hub.make_repo("a/blind", {n: c for n, c in files.items() if n != "metrics.json"})
    with raises(ModelError, "model-no-figures", name="metrics.json"):
        zoo_entry("a/blind")
    hub.make_repo("a/half", {n: c for n, c in files.items() if n != WEIGHTS})
    hub.make_repo("a/changed", {**files, WEIGHTS: files[WEIGHTS] + b"\0"})
    for name in ("half", "changed"):
        with raises(ModelError, "model-entry-files") as caught:
            zoo_entry(f"a/{name}")
        (fault,) = caught.value.fields["faults"]
        assert WEIGHTS in fault


def test_edited_card_is_accepted(hub, files) -> None:
    hub.make_repo("a/edited", {**files, "README.md": files["README.md"] + b"\nMore.\n"})
    assert verify(zoo_entry("a/edited")) == []


def test_missing_and_denied_repos(hub, files, monkeypatch) -> None:
    with raises(HubNotFoundError, "hub-not-found-repo"):
        zoo_entry("no/such")
    hub.make_repo("a/b", files)
    with raises(HubNotFoundError, "hub-not-found-revision"):
        zoo_entry("a/b@v9")
    hub.make_repo("a/gated", files, gated="manual")
    hub.make_repo("a/secret", files, private=True)
    assert zoo_entry("a/secret").repo == "a/secret"
    monkeypatch.setenv("HF_TOKEN", hub.other_token)
    with raises(HubDeniedError, "hub-denied-gated"):
        zoo_entry("a/gated")
    with raises(HubNotFoundError, "hub-not-found-repo"):
        zoo_entry("a/secret")


# --- verify


def test_pinned_entry_is_verified(hub, repo, files) -> None:
    model = zoo_entry(REPO)
    assert verify(model) == []
    wrong = {**model.files, WEIGHTS: model.files[WEIGHTS].model_copy(update={"sha256": "0" * 64})}
    (fault,) = verify(model.model_copy(update={"files": wrong}))
    assert fault.startswith(f"{WEIGHTS} has sha256 ")
    gone = {n: r for n, r in model.files.items() if n != "samples.png"}
    (fault,) = verify(model.model_copy(update={"files": gone}))
    assert "samples.png" in fault
    (fault,) = verify(model.model_copy(update={"parameters": 1}))
    assert "parameters" in fault
    with raises(HubNotFoundError, "hub-not-found-revision"):
        verify(model.model_copy(update={"commit": "f" * 40}))


def test_damaged_download_is_repeated(hub, repo) -> None:
    hub.fail(Fault("flip", r"GET .*/metrics\.json"))
    model = zoo_entry(REPO)
    assert model.files == find("shapes-tiny").files
    assert verify(model) == []


def test_file_damaged_twice_is_refused(hub, repo) -> None:
    hub.fail(Fault("flip", r"GET .*/metrics\.json", times=10))
    with raises(ModelError, "model-remote-damaged", name="metrics.json"):
        zoo_entry(REPO)


def test_unavailable_hub(hub, repo) -> None:
    model = zoo_entry(REPO)
    hub.fail(Fault("status", r".*/tree/.*", times=100, status=429, headers=WAIT))
    with raises(HubUnavailableError, "hub-unavailable-wait") as caught:
        verify(model)
    assert "120 s" in str(caught.value.hint)


# --- search


def card(*tags: str) -> bytes:
    rows = "".join(f"- {tag}\n" for tag in tags)
    return f"---\nlibrary_name: cascadezoo\ntags:\n{rows}---\n# Model\n".encode()


def test_search_finds_models_of_the_library_only(hub, files) -> None:
    hub.make_repo("a/shapes-one", {**files, "README.md": card("cascadezoo", "demo")})
    hub.make_repo("b/shapes-two", {**files, "README.md": card("cascadezoo", "other")})
    hub.make_repo("c/digits", {**files, "README.md": card("cascadezoo")})
    hub.make_repo("d/shapes-bert", {"README.md": b"---\nlibrary_name: transformers\n---\n"})
    results = search("shapes")
    assert sorted(model.repo for model in results) == ["a/shapes-one", "b/shapes-two"]
    one = next(model for model in results if model.repo == "a/shapes-one")
    assert one.commit == hub.repos["a/shapes-one"].commits[-1].oid
    assert "demo" in one.tags
    assert one.zoo == []
    assert len(search("", limit=2)) == 2
    assert len(search("")) == 3
    assert search("nothing of that name") == []


def test_search_results_have_no_control_characters(hub, files) -> None:
    hub.make_repo("a/evil", {"README.md": card("cascadezoo", '"x\\e[2J\\u202e"')})
    (model,) = search("evil")
    assert not {"\x1b", "\u202e"} & set("".join(model.tags))


def test_search_on_an_unavailable_hub(hub) -> None:
    hub.fail(Fault("status", r"GET /api/models(\?.*)?$", times=100, status=429, headers=WAIT))
    with raises(HubUnavailableError, "hub-unavailable-wait") as caught:
        search("shapes")
    assert "120 s" in str(caught.value.hint)


# --- the commands


def test_add_verify_and_search_from_the_command_line(hub, repo, tmp_path) -> None:
    added = run(hub, "add", REPO, cwd=tmp_path)
    assert added.returncode == 0, added.stderr
    commit = repo.commits[-1].oid
    assert f"added shapes-tiny to zoo_manifest.json: {REPO}@{commit}" in added.stdout
    data = json.loads((tmp_path / "zoo_manifest.json").read_text())
    assert data["models"][0]["commit"] == commit
    again = run(hub, "add", REPO, cwd=tmp_path)
    assert "already contains shapes-tiny at the same commit" in again.stdout
    verified = run(hub, "verify", "--manifest", "zoo_manifest.json", cwd=tmp_path)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert verified.stdout.startswith(f"ok     shapes-tiny: {REPO}@{commit}")
    searched = run(hub, "search", "tiny", cwd=tmp_path)
    assert searched.returncode == 0, searched.stderr
    assert REPO in searched.stdout
    for result in (added, again, verified, searched):
        assert hub.token not in result.stdout + result.stderr


def test_refused_model_does_not_change_the_manifest(hub, files, tmp_path) -> None:
    hub.make_repo("a/half", {n: c for n, c in files.items() if n != WEIGHTS})
    result = run(hub, "add", "a/half", "--json", cwd=tmp_path)
    assert result.returncode == 2
    assert json.loads(result.stderr)["error"]["code"] == "model-entry-files"
    assert not (tmp_path / "zoo_manifest.json").exists()


def test_unreachable_model_does_not_stop_verify(hub, repo, tmp_path) -> None:
    run(hub, "add", REPO, "--name", "one", cwd=tmp_path)
    run(hub, "add", REPO, "--name", "two", cwd=tmp_path)
    path = tmp_path / "zoo_manifest.json"
    data = json.loads(path.read_text())
    data["models"][0]["repo"] = "gone/gone"
    path.write_text(json.dumps(data))
    result = run(hub, "verify", "--manifest", path, "--json", cwd=tmp_path)
    assert result.returncode == 1
    one, two = json.loads(result.stdout)["models"]
    assert (one["ok"], two["ok"]) == (False, True)
    assert one["faults"]
