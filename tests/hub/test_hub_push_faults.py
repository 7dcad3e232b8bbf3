"""Publishing while the Hub or the network fails: the old commit or the new one, and a hint."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import pytest
from errors_help import raises
from hub_server import Fault, LocalHub
from push_cases import (
    ALWAYS,
    COMMIT,
    PUT,
    REPO,
    WEIGHTS,
    changes,
    holds,
    new,
    old,
    puts,
)

from cascadezoo.errors import (
    HubConflictError,
    HubDeniedError,
    HubError,
    HubRefusedError,
    HubUnavailableError,
    ModelError,
)
from cascadezoo.hub.publish.commit import publish_hub

# --- the commit


def test_lost_response_is_detected_and_the_commit_not_repeated(
    hub_with_model: LocalHub, newer: Path
) -> None:
    hub_with_model.fail(Fault("lost-response", COMMIT))
    done = publish_hub(newer, REPO, tag="v2")
    repo = hub_with_model.repos[REPO]
    assert holds(repo, new())
    assert len(repo.commits) == 3
    assert len(hub_with_model.seen(COMMIT)) == 1
    assert (done.changed, done.commit, repo.tags["v2"]) == (True, repo.head().oid, repo.head().oid)


def test_lost_response_of_an_unavailable_hub_is_resolved_by_the_next_run(
    hub_with_model: LocalHub, newer: Path, waits: list[float]
) -> None:
    hub_with_model.fail(Fault("lost-response", COMMIT))
    hub_with_model.before(
        COMMIT, lambda: hub_with_model.fail(Fault("status", "GET /api/models/", ALWAYS))
    )
    with raises(HubUnavailableError, "hub-unavailable-unreachable", commit=None) as raised:
        publish_hub(newer, REPO)
    assert raised.value.hint
    hub_with_model.heal()
    assert publish_hub(newer, REPO).changed is False
    assert len(hub_with_model.repos[REPO].commits) == 3


def test_lost_response_of_a_pull_request(hub_with_model: LocalHub, newer: Path) -> None:
    hub_with_model.fail(Fault("lost-response", COMMIT))
    done = publish_hub(newer, REPO, create_pr=True)
    repo = hub_with_model.repos[REPO]
    assert list(repo.pulls) == [1]
    assert holds(repo, new(), "refs/pr/1")
    assert (done.commit, done.pr_url) == (
        repo.pulls[1],
        f"{hub_with_model.url}/{REPO}/discussions/1",
    )


def test_pull_request_is_not_opened_twice(
    hub_with_model: LocalHub, newer: Path, waits: list[float]
) -> None:
    hub_with_model.fail(Fault("status", COMMIT, status=504))
    with raises(HubUnavailableError, "hub-unavailable-busy") as raised:
        publish_hub(newer, REPO, create_pr=True)
    assert f"{REPO}/discussions" in str(raised.value.hint)
    assert len(hub_with_model.seen(COMMIT)) == 1
    # but too many requests are a definite refusal
    hub_with_model.fail(Fault("status", COMMIT, status=429, headers={"Retry-After": "1"}))
    publish_hub(newer, REPO, create_pr=True)
    assert list(hub_with_model.repos[REPO].pulls) == [1]


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_refused_commit_is_repeated(
    hub_with_model: LocalHub, newer: Path, waits: list[float], status: int
) -> None:
    hub_with_model.fail(Fault("status", COMMIT, times=2, status=status))
    publish_hub(newer, REPO)
    assert holds(hub_with_model.repos[REPO], new())
    assert len(hub_with_model.repos[REPO].commits) == 3
    assert puts(hub_with_model) == 2
    assert waits == [0.5, 1.0]


def test_retry_after_sets_the_wait(
    hub_with_model: LocalHub, newer: Path, waits: list[float]
) -> None:
    hub_with_model.fail(Fault("status", COMMIT, status=429, headers={"Retry-After": "7"}))
    publish_hub(newer, REPO)
    assert waits == [7.0]


@pytest.mark.parametrize("match", [COMMIT, PUT, "objects/batch", "whoami", "preupload"])
def test_long_retry_after_fails(
    hub_with_model: LocalHub, newer: Path, waits: list[float], match: str
) -> None:
    headers = {"Retry-After": "3600"}
    hub_with_model.fail(Fault("status", match, times=ALWAYS, status=429, headers=headers))
    with pytest.raises(HubUnavailableError) as raised:
        publish_hub(newer, REPO)
    assert raised.value.retry_after == 3600
    assert "3600 s" in str(raised.value.hint)
    assert max(waits, default=0) < 60
    assert len(hub_with_model.fired) <= 2  # both files may be in transfer
    assert holds(hub_with_model.repos[REPO], old())


def test_persistent_failure_fails(
    hub_with_model: LocalHub, newer: Path, waits: list[float]
) -> None:
    hub_with_model.fail(Fault("status", COMMIT, times=ALWAYS))
    with raises(HubUnavailableError, "hub-unavailable-busy") as raised:
        publish_hub(newer, REPO)
    assert raised.value.exit_code == 1
    assert len(hub_with_model.seen(COMMIT)) == 4
    assert holds(hub_with_model.repos[REPO], old())


def test_hub_without_response_fails(
    hub_with_model: LocalHub, newer: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASCADEZOO_HUB_STALL", "0.2")
    hub_with_model.fail(Fault("slow", COMMIT, times=1, seconds=1.0))
    began = time.monotonic()
    publish_hub(newer, REPO)  # the commit was made, and is detected
    assert time.monotonic() - began < 10
    assert len(hub_with_model.repos[REPO].commits) == 3
    hub_with_model.fail(Fault("slow", "whoami", times=ALWAYS, seconds=0.5))
    with raises(HubUnavailableError, "hub-unavailable-unreachable"):
        publish_hub(newer, REPO)


# --- concurrent commits


def test_moved_branch_is_read_again(hub_with_model: LocalHub, newer: Path) -> None:
    repo = hub_with_model.repos[REPO]
    hub_with_model.before(COMMIT, lambda: repo.commit({"LICENSE": b"mine", "stages/x.pt": b"x"}))
    done = publish_hub(newer, REPO)
    assert repo.head().files["LICENSE"] == b"mine"
    assert done.deleted == ["stages/x.pt"]
    assert len(repo.commits) == 4
    assert puts(hub_with_model) == 2


def test_card_edited_during_the_publish_is_kept(hub_with_model: LocalHub, newer: Path) -> None:
    repo = hub_with_model.repos[REPO]
    text = repo.head().files["README.md"] + b"\nAdded just now.\n"
    hub_with_model.before(COMMIT, lambda: repo.commit({"README.md": text}))
    assert publish_hub(newer, REPO).card_kept
    kept = repo.head().files["README.md"].decode()
    assert kept.endswith("Added just now.\n")
    assert "| kid | 0.5 |" in kept


def test_same_model_published_twice_at_once_is_one_commit(
    hub_with_model: LocalHub, newer: Path
) -> None:
    repo = hub_with_model.repos[REPO]
    before = repo.head().files
    publish_hub(newer, REPO)
    after = repo.head().files
    repo.commit(before)
    hub_with_model.before(COMMIT, lambda: repo.commit(after))
    done = publish_hub(newer, REPO)
    assert done.commit == repo.head().oid
    assert len(repo.commits) == 5


def test_branch_that_keeps_moving_fails(hub_with_model: LocalHub, newer: Path) -> None:
    repo, turns = hub_with_model.repos[REPO], iter(range(100))

    def move() -> None:
        repo.commit({"LICENSE": b"turn %d" % next(turns)})
        hub_with_model.before(COMMIT, move)

    hub_with_model.before(COMMIT, move)
    with raises(HubConflictError, "hub-conflict-publish-race") as raised:
        publish_hub(newer, REPO)
    assert raised.value.exit_code == 1
    assert raised.value.hint
    assert repo.head().files[WEIGHTS] == old()[WEIGHTS]
    assert next(turns) == 3


# --- uploads


def test_interrupted_upload_is_resumed(
    hub_with_model: LocalHub, newer: Path, waits: list[float]
) -> None:
    repo = hub_with_model.repos[REPO]
    sha = sha_of(new()[WEIGHTS])
    hub_with_model.fail(Fault("cut", f"PUT /lfs/{REPO}/{sha}", times=ALWAYS, after_bytes=100))
    with raises(HubUnavailableError, "hub-unavailable-unreachable"):
        publish_hub(newer, REPO)
    assert holds(repo, old())
    assert len(repo.commits) == 2
    hub_with_model.heal()
    hub_with_model.clear()
    publish_hub(newer, REPO)
    assert holds(repo, new())
    assert [r.path.split("/")[4].partition("?")[0] for r in hub_with_model.seen(PUT)] == [sha]


def sha_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_cut_upload_is_repeated(hub_with_model: LocalHub, newer: Path, waits: list[float]) -> None:
    hub_with_model.fail(Fault("cut", PUT, times=2, after_bytes=50))
    publish_hub(newer, REPO)
    assert holds(hub_with_model.repos[REPO], new())


@pytest.mark.parametrize(
    ("match", "status", "kind", "code"),
    [
        ("objects/batch", 422, HubRefusedError, "hub-refused-value"),
        (PUT, 403, HubDeniedError, "hub-denied-token-rights"),
        (PUT, 422, HubRefusedError, "hub-refused-status"),
        ("/verify", 422, HubRefusedError, "hub-refused-status"),
    ],
)
def test_refused_object_stops_the_publish(
    hub_with_model: LocalHub, newer: Path, match: str, status: int, kind: type[HubError], code: str
) -> None:
    hub_with_model.fail(Fault("refuse-lfs", match, times=ALWAYS, status=status))
    with raises(kind, code) as raised:
        publish_hub(newer, REPO)
    assert raised.value.hint
    assert hub_with_model.seen(COMMIT) == []
    assert holds(hub_with_model.repos[REPO], old())


def test_file_changed_during_the_publish_is_not_published(
    hub_with_model: LocalHub, newer: Path
) -> None:
    data = bytearray((newer / WEIGHTS).read_bytes())
    data[-1] ^= 1
    hub_with_model.before("validate-yaml", lambda: (newer / WEIGHTS).write_bytes(data))
    with raises(ModelError, "model-changed-while-published"):
        publish_hub(newer, REPO)
    assert changes(hub_with_model) == []
    # during the transfer, the content does not match the announced sha256
    (newer / WEIGHTS).write_bytes(new()[WEIGHTS])
    hub_with_model.before("objects/batch", lambda: (newer / WEIGHTS).write_bytes(data))
    with pytest.raises(HubError):
        publish_hub(newer, REPO)
    assert holds(hub_with_model.repos[REPO], old())


def test_failed_publish_leaves_a_new_repo_empty(
    hub: LocalHub, model: Path, waits: list[float]
) -> None:
    hub.fail(Fault("status", PUT, times=ALWAYS))
    with pytest.raises(HubUnavailableError):
        publish_hub(model, REPO, private=True)
    assert list(hub.repos[REPO].head().files) == [".gitattributes"]
    hub.heal()
    assert publish_hub(model, REPO, private=True).created is False
    assert holds(hub.repos[REPO], old())


def test_repo_is_used_after_a_lost_response(hub: LocalHub, model: Path, waits: list[float]) -> None:
    hub.fail(Fault("lost-response", "repos/create"))
    hub.fail(Fault("status", "POST .*/branch/"))
    publish_hub(model, REPO, revision="dev")
    assert holds(hub.repos[REPO], old(), "dev")


def test_failed_tag_is_set_by_the_next_run(
    hub_with_model: LocalHub, newer: Path, waits: list[float]
) -> None:
    hub_with_model.fail(Fault("lost-response", "POST .*/tag/"))
    done = publish_hub(newer, REPO, tag="v2")
    assert hub_with_model.repos[REPO].tags == {"v2": done.commit}
    hub_with_model.fail(Fault("status", "POST .*/tag/", times=ALWAYS))
    with raises(HubUnavailableError, "hub-unavailable-busy", commit=done.commit):
        publish_hub(newer, REPO, tag="v3")
    hub_with_model.heal()
    assert publish_hub(newer, REPO, tag="v3").changed is False
    assert hub_with_model.repos[REPO].tags == {"v2": done.commit, "v3": done.commit}


def test_damaged_download_is_repeated(
    hub_with_model: LocalHub, newer: Path, waits: list[float]
) -> None:
    """A wrong byte in the card on the Hub would count as an edit."""
    hub_with_model.fail(Fault("flip", "GET .*/resolve/.*", times=1, after_bytes=9))
    assert publish_hub(newer, REPO).card_kept is False
    assert holds(hub_with_model.repos[REPO], new())
    hub_with_model.repos[REPO].commit({"README.md": b"# Mine\n"})
    hub_with_model.fail(Fault("flip", "GET .*/resolve/.*", times=ALWAYS, after_bytes=4))
    with raises(HubUnavailableError, "hub-unavailable-damaged"):
        publish_hub(newer, REPO)
