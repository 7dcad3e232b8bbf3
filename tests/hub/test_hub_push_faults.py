"""Publishing while the Hub or the network fails: the old commit or the new one, and a way out."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import pytest
from errors_help import raises
from hub_server import Fault, LocalHub
from push_cases import (
    COMMIT,
    EVER,
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
from cascadezoo.hub import client
from cascadezoo.hub.publish.commit import publish_hub

# --- the commit


def test_a_lost_answer_is_recognised_and_the_commit_not_made_twice(
    there: LocalHub, newer: Path
) -> None:
    there.fail(Fault("lost-answer", COMMIT))
    done = publish_hub(newer, REPO, tag="v2")
    repo = there.repos[REPO]
    assert holds(repo, new())
    assert len(repo.commits) == 3
    assert len(there.seen(COMMIT)) == 1
    assert (done.changed, done.commit, repo.tags["v2"]) == (True, repo.head().oid, repo.head().oid)


def test_a_lost_answer_and_a_hub_that_is_gone_is_told_and_mended_by_the_next_run(
    there: LocalHub, newer: Path, waits: list[float]
) -> None:
    there.fail(Fault("lost-answer", COMMIT))
    there.before(COMMIT, lambda: there.fail(Fault("status", "GET /api/models/", EVER)))
    with pytest.raises(HubUnavailableError) as raised:
        publish_hub(newer, REPO)
    assert "Whether the commit was made could not be asked" in raised.value.what
    assert "run the same command again" in str(raised.value.hint)
    there.heal()
    assert publish_hub(newer, REPO).changed is False
    assert len(there.repos[REPO].commits) == 3


def test_a_lost_answer_of_a_pull_request(there: LocalHub, newer: Path) -> None:
    there.fail(Fault("lost-answer", COMMIT))
    done = publish_hub(newer, REPO, create_pr=True)
    repo = there.repos[REPO]
    assert list(repo.pulls) == [1]
    assert holds(repo, new(), "refs/pr/1")
    assert (done.commit, done.pr_url) == (repo.pulls[1], f"{there.url}/{REPO}/discussions/1")


def test_a_pull_request_is_not_opened_a_second_time_on_suspicion(
    there: LocalHub, newer: Path, waits: list[float]
) -> None:
    there.fail(Fault("status", COMMIT, status=504))
    with pytest.raises(HubUnavailableError) as raised:
        publish_hub(newer, REPO, create_pr=True)
    assert f"{REPO}/discussions" in str(raised.value.hint)
    assert len(there.seen(COMMIT)) == 1
    # but too many requests are a clear no
    there.fail(Fault("status", COMMIT, status=429, headers={"Retry-After": "1"}))
    publish_hub(newer, REPO, create_pr=True)
    assert list(there.repos[REPO].pulls) == [1]


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_refused_commit_is_sent_again(
    there: LocalHub, newer: Path, waits: list[float], status: int
) -> None:
    there.fail(Fault("status", COMMIT, times=2, status=status))
    publish_hub(newer, REPO)
    assert holds(there.repos[REPO], new())
    assert len(there.repos[REPO].commits) == 3
    assert puts(there) == 2
    assert waits == [0.5, 1.0]


def test_the_hub_says_how_long_to_wait(there: LocalHub, newer: Path, waits: list[float]) -> None:
    there.fail(Fault("status", COMMIT, status=429, headers={"Retry-After": "7"}))
    publish_hub(newer, REPO)
    assert waits == [7.0]


@pytest.mark.parametrize("match", [COMMIT, PUT, "objects/batch", "whoami", "preupload"])
def test_nobody_waits_for_an_hour(
    there: LocalHub, newer: Path, waits: list[float], match: str
) -> None:
    headers = {"Retry-After": "3600"}
    there.fail(Fault("status", match, times=EVER, status=429, headers=headers))
    with pytest.raises(HubUnavailableError) as raised:
        publish_hub(newer, REPO)
    assert raised.value.retry_after == 3600
    assert "in 3600 s" in str(raised.value.hint)
    assert max(waits, default=0) < 60
    assert len(there.fired) <= 2  # both files may be on their way
    assert holds(there.repos[REPO], old())


def test_a_hub_that_stays_away_is_given_up(
    there: LocalHub, newer: Path, waits: list[float]
) -> None:
    there.fail(Fault("status", COMMIT, times=EVER))
    with raises(HubUnavailableError, "hub-unavailable-busy") as raised:
        publish_hub(newer, REPO)
    assert raised.value.exit_code == 1
    assert len(there.seen(COMMIT)) == 4
    assert holds(there.repos[REPO], old())


def test_a_hub_that_never_answers_is_given_up(
    there: LocalHub, newer: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(client._TIMEOUTS, "read", 0.2)
    there.fail(Fault("slow", COMMIT, times=1, seconds=1.0))
    began = time.monotonic()
    publish_hub(newer, REPO)  # it was made, and is found
    assert time.monotonic() - began < 10
    assert len(there.repos[REPO].commits) == 3
    there.fail(Fault("slow", "whoami", times=EVER, seconds=0.5))
    with raises(HubUnavailableError, "hub-unavailable-unreachable"):
        publish_hub(newer, REPO)


# --- somebody else


def test_a_branch_that_moved_is_read_anew(there: LocalHub, newer: Path) -> None:
    repo = there.repos[REPO]
    there.before(COMMIT, lambda: repo.commit({"LICENSE": b"mine", "stages/x.pt": b"x"}))
    done = publish_hub(newer, REPO)
    assert repo.head().files["LICENSE"] == b"mine"
    assert done.deleted == ["stages/x.pt"]
    assert len(repo.commits) == 4
    assert puts(there) == 2


def test_a_card_that_is_edited_at_that_very_moment_is_kept(there: LocalHub, newer: Path) -> None:
    repo = there.repos[REPO]
    text = repo.head().files["README.md"] + b"\nAdded just now.\n"
    there.before(COMMIT, lambda: repo.commit({"README.md": text}))
    assert publish_hub(newer, REPO).card_kept
    kept = repo.head().files["README.md"].decode()
    assert kept.endswith("Added just now.\n")
    assert "| kid | 0.5 |" in kept


def test_the_same_model_published_by_two_at_once_is_one_commit(
    there: LocalHub, newer: Path
) -> None:
    repo = there.repos[REPO]
    before = repo.head().files
    publish_hub(newer, REPO)
    after = repo.head().files
    repo.commit(before)
    there.before(COMMIT, lambda: repo.commit(after))
    done = publish_hub(newer, REPO)
    assert done.commit == repo.head().oid
    assert len(repo.commits) == 5


def test_a_branch_that_keeps_moving_is_told(there: LocalHub, newer: Path) -> None:
    repo, turns = there.repos[REPO], iter(range(100))

    def move() -> None:
        repo.commit({"LICENSE": b"turn %d" % next(turns)})
        there.before(COMMIT, move)

    there.before(COMMIT, move)
    with raises(HubConflictError, "hub-conflict-publish-race") as raised:
        publish_hub(newer, REPO)
    assert raised.value.exit_code == 1
    assert "run the same command again" in str(raised.value.hint)
    assert repo.head().files[WEIGHTS] == old()[WEIGHTS]
    assert next(turns) == 3


# --- uploads


def test_an_interrupted_upload_is_taken_up_where_it_ended(
    there: LocalHub, newer: Path, waits: list[float]
) -> None:
    repo = there.repos[REPO]
    sha = sha_of(new()[WEIGHTS])
    there.fail(Fault("cut", f"PUT /lfs/{REPO}/{sha}", times=EVER, after_bytes=100))
    with pytest.raises(HubUnavailableError) as raised:
        publish_hub(newer, REPO)
    assert raised.value.code == "hub-unavailable-unreachable"
    assert holds(repo, old())
    assert len(repo.commits) == 2
    there.heal()
    there.clear()
    publish_hub(newer, REPO)
    assert holds(repo, new())
    assert [r.path.split("/")[4].partition("?")[0] for r in there.seen(PUT)] == [sha]


def sha_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_cut_in_the_middle_of_an_object_is_mended_at_once(
    there: LocalHub, newer: Path, waits: list[float]
) -> None:
    there.fail(Fault("cut", PUT, times=2, after_bytes=50))
    publish_hub(newer, REPO)
    assert holds(there.repos[REPO], new())


@pytest.mark.parametrize(
    ("match", "status", "kind", "code"),
    [
        ("objects/batch", 422, HubRefusedError, "hub-refused"),
        (PUT, 403, HubDeniedError, "hub-denied-token-rights"),
        (PUT, 422, HubRefusedError, "hub-refused-status"),
        ("/verify", 422, HubRefusedError, "hub-refused-status"),
    ],
)
def test_a_refused_object_stops_everything(
    there: LocalHub, newer: Path, match: str, status: int, kind: type[HubError], code: str
) -> None:
    there.fail(Fault("refuse-lfs", match, times=EVER, status=status))
    with raises(kind, code) as raised:
        publish_hub(newer, REPO)
    assert raised.value.hint
    assert there.seen(COMMIT) == []
    assert holds(there.repos[REPO], old())


def test_a_file_that_changes_meanwhile_is_not_published(there: LocalHub, newer: Path) -> None:
    data = bytearray((newer / WEIGHTS).read_bytes())
    data[-1] ^= 1
    there.before("validate-yaml", lambda: (newer / WEIGHTS).write_bytes(data))
    with raises(ModelError, "model-changed-while-published"):
        publish_hub(newer, REPO)
    assert changes(there) == []
    # and while it is on its way, the sha256 that was announced does not fit
    (newer / WEIGHTS).write_bytes(new()[WEIGHTS])
    there.before("objects/batch", lambda: (newer / WEIGHTS).write_bytes(data))
    with pytest.raises(HubError):
        publish_hub(newer, REPO)
    assert holds(there.repos[REPO], old())


def test_a_publish_that_failed_in_a_new_repo_leaves_it_empty(
    hub: LocalHub, model: Path, waits: list[float]
) -> None:
    hub.fail(Fault("status", PUT, times=EVER))
    with pytest.raises(HubUnavailableError):
        publish_hub(model, REPO, private=True)
    assert list(hub.repos[REPO].head().files) == [".gitattributes"]
    hub.heal()
    assert publish_hub(model, REPO, private=True).created is False
    assert holds(hub.repos[REPO], old())


def test_a_repo_whose_answer_was_lost_is_used(
    hub: LocalHub, model: Path, waits: list[float]
) -> None:
    hub.fail(Fault("lost-answer", "repos/create"))
    hub.fail(Fault("status", "POST .*/branch/"))
    publish_hub(model, REPO, revision="dev")
    assert holds(hub.repos[REPO], old(), "dev")


def test_a_tag_that_fails_is_told_and_set_by_the_next_run(
    there: LocalHub, newer: Path, waits: list[float]
) -> None:
    there.fail(Fault("lost-answer", "POST .*/tag/"))
    done = publish_hub(newer, REPO, tag="v2")
    assert there.repos[REPO].tags == {"v2": done.commit}
    there.fail(Fault("status", "POST .*/tag/", times=EVER))
    with raises(HubUnavailableError, "hub-unavailable-busy", commit=done.commit):
        publish_hub(newer, REPO, tag="v3")
    there.heal()
    assert publish_hub(newer, REPO, tag="v3").changed is False
    assert there.repos[REPO].tags == {"v2": done.commit, "v3": done.commit}


def test_a_damaged_answer_is_not_believed(there: LocalHub, newer: Path, waits: list[float]) -> None:
    """The card that is there decides what is kept of it: one wrong byte, and it would be edited."""
    there.fail(Fault("flip", "GET .*/resolve/.*", times=1, after_bytes=9))
    assert publish_hub(newer, REPO).card_kept is False
    assert holds(there.repos[REPO], new())
    there.repos[REPO].commit({"README.md": b"# Mine\n"})
    there.fail(Fault("flip", "GET .*/resolve/.*", times=EVER, after_bytes=4))
    with raises(HubUnavailableError, "hub-unavailable-damaged"):
        publish_hub(newer, REPO)
