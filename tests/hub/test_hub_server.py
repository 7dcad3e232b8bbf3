"""The local Hub against the real client: publishing and reading."""

from __future__ import annotations

import hashlib
import re
import subprocess
import threading
from pathlib import Path

import pytest
from hub_client import CARD, FILES, ID, WEIGHTS, added, download, raw
from hub_server import LocalHub
from huggingface_hub import CommitOperationDelete, HfApi, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    RemoteEntryNotFoundError,
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


# --- publishing ---------------------------------------------------------------------------------


def test_repo_is_created_once(hub, api):
    assert api.whoami()["name"] == "tester"
    url = api.create_repo(ID, private=True)
    assert str(url) == f"{hub.url}/{ID}"
    assert hub.repos[ID].private
    assert list(hub.repos[ID].commits[0].files) == [".gitattributes"]
    assert api.create_repo(ID, exist_ok=True) == url
    with pytest.raises(HfHubHTTPError) as refused:
        api.create_repo(ID)
    assert refused.value.response.status_code == 409
    api.delete_repo(ID)
    assert ID not in hub.repos


def test_commit_of_regular_and_lfs_files(hub, api):
    repo = hub.make_repo(ID)
    done = api.create_commit(
        ID, added(FILES), commit_message="first", parent_commit=repo.head().oid
    )
    (start, commit) = repo.commits
    assert done.oid == commit.oid == repo.branches["main"]
    assert commit.parent == start.oid
    assert commit.message == "first"
    assert {p: c for p, c in commit.files.items() if p != ".gitattributes"} == FILES
    assert commit.lfs == {"stages/base.safetensors"}
    assert [r.user for r in hub.seen(r"^PUT /lfs/")] == [None]  # storage gets no token
    assert len(hub.seen(r"/verify$")) == 1


def test_oids_match_git(hub, api, tmp_path):
    commit = hub.make_repo(ID, FILES).head()
    tree = {f.path: f for f in api.list_repo_tree(ID, recursive=True)}
    (tmp_path / "file").write_bytes(CARD)
    git = subprocess.run(
        ["git", "hash-object", "--no-filters", tmp_path / "file"], capture_output=True, text=True
    )
    assert tree["README.md"].blob_id == git.stdout.strip()
    sha256 = hashlib.sha256(WEIGHTS).hexdigest()
    lfs = tree["stages/base.safetensors"].lfs
    assert (lfs.sha256, lfs.size, lfs.pointer_size) == (sha256, len(WEIGHTS), 131)
    assert tree["stages"].tree_id
    assert re.fullmatch("[0-9a-f]{40}", commit.oid)


def test_existing_files_are_neither_sent_nor_committed(hub, api):
    repo = hub.make_repo(ID, FILES)
    api.create_commit(ID, added(FILES), commit_message="again")
    assert len(repo.commits) == 2
    api.create_commit(ID, added({**FILES, "more.safetensors": WEIGHTS}), commit_message="more")
    assert repo.head().files["more.safetensors"] == WEIGHTS
    assert not hub.seen("^PUT ")  # the object was in the storage


def test_files_and_folders_are_deleted(hub, api):
    repo = hub.make_repo(ID, {**FILES, "stages/sr.safetensors": b"sr"})
    operations = [CommitOperationDelete("stages/"), CommitOperationDelete("config.json")]
    api.create_commit(ID, operations, commit_message="less")
    assert set(repo.head().files) == {".gitattributes", "README.md"}
    with pytest.raises(RemoteEntryNotFoundError):
        api.create_commit(ID, [CommitOperationDelete("gone")], commit_message="less")
    assert len(repo.commits) == 3


def test_large_object_is_sent_in_parts(hub, api):
    repo = hub.make_repo(ID)
    hub.state.multipart_above, hub.state.part_size = 100_000, 65_536
    api.create_commit(ID, added(FILES), commit_message="first")
    assert repo.head().files["stages/base.safetensors"] == WEIGHTS
    sizes = {r.path.split("?")[0][-1]: r.size for r in hub.seen(r"^PUT /lfs/.*/\d\?")}
    assert sizes == {"1": 65_536, "2": 65_536, "3": 65_536, "4": len(WEIGHTS) - 3 * 65_536}


def test_commit_on_an_outdated_parent_is_refused(hub, api):
    repo = hub.make_repo(ID)
    hub.before(r"POST .*/commit/", lambda: repo.commit({"README.md": b"faster"}))
    with pytest.raises(HfHubHTTPError) as refused:
        api.create_commit(ID, added(FILES), commit_message="late", parent_commit=repo.head().oid)
    assert refused.value.response.status_code == 412
    assert repo.head().files["README.md"] == b"faster"
    assert len(repo.commits) == 2


def test_one_of_many_commits_on_one_parent_succeeds(hub):
    repo = hub.make_repo(ID)
    parent, outcomes = repo.head().oid, []

    def push(number: int) -> None:
        client = HfApi(endpoint=hub.url, token=hub.token)
        files = added({"config.json": str(number).encode()})
        try:
            client.create_commit(ID, files, commit_message=f"{number}", parent_commit=parent)
            outcomes.append(200)
        except HfHubHTTPError as error:
            outcomes.append(error.response.status_code)

    threads = [threading.Thread(target=push, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [200] + [412] * 7
    assert len(repo.commits) == 2


def test_pull_request_does_not_change_main(hub, api):
    repo = hub.make_repo(ID, FILES)
    before = repo.head()
    done = api.create_commit(
        ID, added({"config.json": b"{}"}), commit_message="proposal", create_pr=True
    )
    assert done.pr_url == f"{hub.url}/{ID}/discussions/1"
    assert done.pr_revision == "refs/pr/1"
    assert repo.head() == before
    assert download(hub, "config.json", revision="refs/pr/1") == b"{}"
    (request,) = api.list_repo_refs(ID, include_pull_requests=True).pull_requests
    assert request.target_commit == done.oid == repo.pulls[1]
    api.create_commit(
        ID, added({"config.json": b"[]"}), commit_message="more", revision="refs/pr/1"
    )
    assert repo.head("refs/pr/1").files["config.json"] == b"[]"


def test_branches_and_tags(hub, api):
    repo = hub.make_repo(ID, FILES)
    api.create_branch(ID, branch="feature/x")
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_branch(ID, branch="feature/x")
    api.create_commit(ID, added({"config.json": b"{}"}), commit_message="x", revision="feature/x")
    api.create_tag(ID, tag="v1", revision="feature/x")
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_tag(ID, tag="v1")
    api.create_tag(ID, tag="v1", exist_ok=True)
    assert repo.tags["v1"] == repo.branches["feature/x"] != repo.branches["main"]
    assert download(hub, "config.json", revision="v1") == b"{}"
    refs = api.list_repo_refs(ID)
    assert {b.name: b.target_commit for b in refs.branches} == repo.branches
    assert [(t.name, t.ref) for t in refs.tags] == [("v1", "refs/tags/v1")]
    api.delete_tag(ID, tag="v1")
    api.delete_branch(ID, branch="feature/x")
    assert (repo.tags, list(repo.branches)) == ({}, ["main"])
    with pytest.raises(RevisionNotFoundError):
        api.delete_tag(ID, tag="v1")


@pytest.mark.parametrize(
    ("card", "message"),
    [
        (b"---\nlicense: mine\n---\n", '"license" must be one of'),
        (b"---\ntags: digits\n---\n", '"tags" must be an array'),
        (b"---\na: [\n---\n", "YAML parsing error"),
        (b"---\nmodel-index: [{name: x, results: [{task: {}}]}]\n---\n", "task.type. is required"),
    ],
)
def test_card_with_invalid_metadata_is_refused_before_the_upload(hub, api, card, message):
    repo = hub.make_repo(ID)
    with pytest.raises(ValueError, match=message):
        api.create_commit(ID, added({**FILES, "README.md": card}), commit_message="first")
    assert [str(r) for r in hub.requests] == ["POST /api/validate-yaml"]
    assert len(repo.commits) == 1


def test_card_without_metadata_warns_and_needs_no_token(hub, api):
    hub.make_repo(ID)
    with pytest.warns(UserWarning, match="empty or missing yaml"):
        api.create_commit(ID, added({"README.md": b"# hi"}), commit_message="first")
    anonymous = HfApi(endpoint=hub.url, token=False)
    anonymous._validate_yaml(CARD.decode())
    assert hub.requests[-1].user is None


# --- reading ------------------------------------------------------------------------------------


def test_snapshot_equals_the_commit(hub, api):
    commit = hub.make_repo(ID, FILES, tags=("v1",)).head()
    folder = Path(snapshot_download(ID, revision="v1", endpoint=hub.url, token=hub.token))
    assert folder.name == commit.oid
    files = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert files == commit.files
    blobs = {p.name for p in (folder.parents[1] / "blobs").iterdir()}
    assert blobs == {commit.etag(p) for p in commit.files}
    (cdn,) = hub.seen("^GET /cdn/")
    assert cdn.headers["host"].startswith("localhost:")
    assert "authorization" not in cdn.headers


def test_cached_file_needs_one_request_by_branch_and_none_by_commit(hub):
    commit = hub.make_repo(ID, FILES).head()
    assert download(hub, "stages/base.safetensors") == WEIGHTS
    hub.clear()
    assert download(hub, "stages/base.safetensors") == WEIGHTS
    assert [r.method for r in hub.requests] == ["HEAD"]
    hub.clear()
    assert download(hub, "stages/base.safetensors", revision=commit.oid) == WEIGHTS
    assert hub.requests == []


def test_ranges_and_headers(hub):
    hub.make_repo(ID, FILES)
    path = f"/{ID}/resolve/main/README.md"
    head = raw(hub, "HEAD", path)
    assert head.status == 200
    assert head.headers["ETag"] == f'"{hub.repos[ID].head().etag("README.md")}"'
    assert head.headers["X-Repo-Commit"] == hub.repos[ID].head().oid
    assert head.headers["Content-Length"] == str(len(CARD))
    part = raw(hub, "GET", path, Range="bytes=4-9")
    assert (part.status, part.content) == (206, CARD[4:10])
    assert part.headers["Content-Range"] == f"bytes 4-9/{len(CARD)}"
    assert raw(hub, "GET", path, Range="bytes=10-").content == CARD[10:]
    assert raw(hub, "GET", path, Range="bytes=-3").content == CARD[-3:]
    beyond = raw(hub, "GET", path, Range=f"bytes={len(CARD)}-")
    assert (beyond.status, beyond.headers["Content-Range"]) == (416, f"bytes */{len(CARD)}")
    linked = raw(hub, "HEAD", f"/{ID}/resolve/main/stages/base.safetensors")
    assert linked.status == 302
    assert linked.headers["X-Linked-Etag"] == f'"{hashlib.sha256(WEIGHTS).hexdigest()}"'
    assert linked.headers["X-Linked-Size"] == str(len(WEIGHTS))
    where = "/" + linked.headers["Location"].split("/", 3)[3]
    assert raw(hub, "GET", where, Range="bytes=1000-1999").content == WEIGHTS[1000:2000]
    assert raw(hub, "GET", where.split("?")[0]).status == 403  # not without the signature


def test_information_tree_paths_and_history(hub, api):
    repo = hub.make_repo(ID, FILES)
    repo.commit({"stages/a b.safetensors": b"x"}, message="second")
    info = api.model_info(ID, files_metadata=True)
    assert (info.sha, info.author, info.library_name) == (repo.head().oid, "org", "cascadezoo")
    assert info.card_data["license"] == "mit"
    assert info.card_data.eval_results[0].metric_value == 1.5
    sizes = {s.rfilename: s.size for s in info.siblings}
    assert sizes == {p: len(c) for p, c in repo.head().files.items()}
    assert (
        api.model_info(ID, revision=repo.commits[0].oid).siblings[0].rfilename == ".gitattributes"
    )
    expanded = api.model_info(ID, expand=["sha", "downloads"])
    assert (expanded.sha, expanded.siblings) == (info.sha, None)
    top = [f.path for f in api.list_repo_tree(ID)]
    assert top == [".gitattributes", "README.md", "config.json", "stages"]
    hub.state.page_size = 2
    below = {f.path for f in api.list_repo_tree(ID, "stages", expand=True)}
    assert below == {"stages/a b.safetensors", "stages/base.safetensors"}
    hub.clear()
    assert len(list(api.list_repo_tree(ID, recursive=True))) == 6
    assert len(hub.requests) == 3  # pages of two
    paths = api.get_paths_info(ID, ["config.json", "stages", "nothing"])
    assert [p.path for p in paths] == ["config.json", "stages"]
    history = api.list_repo_commits(ID)
    assert [c.title for c in history] == ["second", "commit", "initial commit"]
    assert download(hub, "stages/a b.safetensors") == b"x"


def test_lists_are_filtered_and_paged(hub, api):
    for n in range(5):
        hub.make_repo(f"org/digits-{n}", FILES)
    hub.make_repo("other/digits", {"README.md": b"---\nlicense: mit\n---\n"})
    hub.make_repo("secret/digits", FILES, private=True)
    hub.state.page_size = 2
    anonymous = HfApi(endpoint=hub.url, token=False)
    listed = anonymous.list_models(filter=["cascadezoo", "digits"], search="DIGITS-")
    assert sorted(m.id for m in listed) == [f"org/digits-{n}" for n in range(5)]
    assert [m.id for m in anonymous.list_models(author="other")] == ["other/digits"]
    assert len(list(api.list_models(filter="cascadezoo"))) == 6  # its private one too
    assert len(list(api.list_models(filter="cascadezoo", limit=3))) == 3
    (one,) = api.list_models(search="digits-3", full=True, cardData=True)
    assert one.card_data["library_name"] == "cascadezoo"
    assert one.sha == hub.repos["org/digits-3"].head().oid


def test_config_json_counts_downloads(hub, api):
    hub.make_repo(ID, FILES)
    download(hub, "README.md")
    assert api.model_info(ID).downloads == 0
    download(hub, "config.json")
    assert api.model_info(ID).downloads == 2  # a HEAD and a GET
