"""Publishing to the Hub without faults."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import LocalHub
from hypothesis import given, settings
from hypothesis import strategies as st
from push_cases import (
    CHANGES,
    REPO,
    WEIGHTS,
    card,
    changes,
    holds,
    model_in,
    new,
    old,
    published,
    puts,
    write,
)

from cascadezoo.cards.card_file import merge_cards
from cascadezoo.cards.check_card import read_front
from cascadezoo.cards.render_card import block
from cascadezoo.hub.locate import locate
from cascadezoo.hub.publish.commit import publish_hub
from cascadezoo.model_folder.integrity import check_files
from cascadezoo.model_folder.layout import read_config


def test_model_is_one_commit(hub: LocalHub, model: Path) -> None:
    done = publish_hub(model, REPO, tag="v1", message="Two words")
    repo = hub.repos[REPO]
    assert len(repo.commits) == 2  # the Hub's initial commit, and ours
    commit = repo.head()
    assert (commit.message, commit.parent) == ("Two words", repo.commits[0].oid)
    assert holds(repo, old())
    assert commit.lfs == {WEIGHTS, "samples.png"}
    assert repo.tags == {"v1": commit.oid}
    assert not repo.private
    assert (done.url, done.commit, done.tag) == (f"{hub.url}/{REPO}", commit.oid, "v1")
    assert (done.changed, done.created, done.card_kept, done.deleted) == (True, True, False, [])
    assert done.files == {n: len(commit.files[n]) for n in model_in(commit)}
    assert done.uploaded_bytes == done.size == sum(done.files.values())
    assert json.loads(json.dumps(done.to_dict()))["commit"] == commit.oid


def test_published_model_is_pulled_unchanged(hub: LocalHub, model: Path) -> None:
    publish_hub(model, REPO)
    folder = locate(f"hf://{REPO}")
    check_files(folder, read_config(folder))
    assert (folder / WEIGHTS).read_bytes() == old()[WEIGHTS]
    assert f"cascadezoo sample {REPO}`" in (folder / "README.md").read_text()
    # and publish the pulled model to another repo
    publish_hub(folder, "org/again")
    assert model_in(hub.repos["org/again"].head())[WEIGHTS] == old()[WEIGHTS]


def test_unchanged_model_is_not_sent_again(hub: LocalHub, model: Path) -> None:
    first = publish_hub(model, REPO, tag="v1")
    hub.clear()
    again = publish_hub(model, REPO, tag="v1")
    assert (again.changed, again.uploaded_bytes, again.created) == (False, 0, False)
    assert (again.commit, again.tag) == (first.commit, "v1")
    assert changes(hub) == []
    assert len(hub.requests) == 3
    assert len(hub.repos[REPO].commits) == 2


def test_new_version_sends_changes_and_deletes_stale_files(
    hub: LocalHub, model: Path, newer: Path
) -> None:
    publish_hub(model, REPO)
    repo = hub.repos[REPO]
    repo.commit({"stages/up/model.safetensors": b"\0old", "stages/x.bin": b"x", "LICENSE": b"L"})
    (newer / "samples.png").write_bytes(old()["samples.png"])
    write(_reseal(newer), newer)
    hub.clear()
    done = publish_hub(newer, REPO)
    assert done.deleted == ["stages/up/model.safetensors", "stages/x.bin"]
    assert sorted(repo.head().files) == [
        *(".gitattributes", "LICENSE", "README.md", "config.json", "metrics.json", "samples.png"),
        WEIGHTS,
    ]
    assert repo.head().files[WEIGHTS] == new()[WEIGHTS]
    assert len(repo.commits) == 4
    assert puts(hub) == 1  # the repo has samples.png and metrics.json
    assert done.uploaded_bytes < done.size


def _reseal(folder: Path) -> dict[str, bytes]:
    from pull_cases import contents, resealed

    return resealed(contents(folder))


def test_branch_is_created_and_main_unchanged(hub: LocalHub, model: Path, newer: Path) -> None:
    publish_hub(model, REPO)
    done = publish_hub(newer, REPO, revision="exp/2")
    repo = hub.repos[REPO]
    assert done.url == f"{hub.url}/{REPO}/tree/exp/2"
    assert holds(repo, old())
    assert holds(repo, new(), "exp/2")
    assert repo.head("exp/2").parent == repo.head().oid
    assert publish_hub(newer, REPO, revision="exp/2").changed is False
    # also in a new repo
    publish_hub(model, "org/other", revision="dev")
    assert "config.json" not in hub.repos["org/other"].head().files
    assert hub.repos["org/other"].head("dev").files[WEIGHTS] == old()[WEIGHTS]


def test_pull_request_does_not_change_the_branch(hub: LocalHub, model: Path, newer: Path) -> None:
    publish_hub(model, REPO)
    done = publish_hub(newer, REPO, create_pr=True)
    repo = hub.repos[REPO]
    assert holds(repo, old())
    assert holds(repo, new(), "refs/pr/1")
    assert (done.pr_url, done.commit) == (f"{hub.url}/{REPO}/discussions/1", repo.pulls[1])


def test_user_without_write_access_may_open_a_pull_request(
    hub: LocalHub, model: Path, newer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_hub(model, REPO)
    hub.state.foreign.add("org")
    publish_hub(newer, REPO, create_pr=True)
    assert holds(hub.repos[REPO], old())
    assert holds(hub.repos[REPO], new(), "refs/pr/1")


def test_dry_run_changes_nothing(hub: LocalHub, model: Path, newer: Path) -> None:
    done = publish_hub(model, REPO, dry_run=True, tag="v1", revision="dev")
    assert (done.commit, done.changed, done.dry_run) == (None, True, True)
    assert hub.repos == {}
    publish_hub(model, REPO)
    before = hub.repos[REPO].head()
    hub.clear()
    done = publish_hub(newer, REPO, dry_run=True, private=False)
    assert done.uploaded_bytes > 0
    assert publish_hub(model, REPO, dry_run=True).commit == before.oid
    assert changes(hub) == []
    assert hub.repos[REPO].head() is before


def test_private_repo(hub: LocalHub, model: Path, newer: Path) -> None:
    publish_hub(model, REPO, private=True)
    assert hub.repos[REPO].private
    publish_hub(newer, REPO, private=True)
    publish_hub(model, REPO)  # stays private
    assert hub.repos[REPO].private


def test_gitignore_in_the_repo_excludes_nothing(hub: LocalHub, model: Path) -> None:
    hub.make_repo(REPO, {".gitignore": b"*.safetensors\n*.png\n"})
    publish_hub(model, REPO)
    assert hub.repos[REPO].head().files[WEIGHTS] == old()[WEIGHTS]


def test_model_without_a_card_gets_a_plain_card(hub: LocalHub, model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    del config["files"]["README.md"]
    (model / "config.json").write_text(json.dumps(config))
    (model / "README.md").unlink()
    publish_hub(model, REPO)
    text = hub.repos[REPO].head().files["README.md"].decode()
    front = read_front(text)
    assert isinstance(front, dict)
    assert (front["library_name"], front["license"]) == ("cascadezoo", "apache-2.0")
    assert f'Cascade.from_pretrained("{REPO}")' in text
    assert publish_hub(model, REPO).changed is False


# --- Xet


XET = """
import sys
import huggingface_hub.utils._runtime as runtime
assert runtime.is_xet_available() is (sys.argv[3] == "on"), sys.argv[3]
from cascadezoo.hub.publish.commit import publish_hub
publish_hub(sys.argv[1], sys.argv[2])
"""


@pytest.mark.parametrize("xet", ["on", "off"])
def test_weights_are_never_sent_by_xet(hub: LocalHub, model: Path, xet: str) -> None:
    """With Xet, the client requests a token from this server, which has no Xet, and fails."""
    pytest.importorskip("hf_xet")
    env = {**os.environ, **hub.env, "HF_HUB_DISABLE_XET": "0" if xet == "on" else "1"}
    result = subprocess.run(
        [sys.executable, "-c", XET, str(model), REPO, xet],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "Xet" not in result.stderr
    assert holds(hub.repos[REPO], old())
    assert len(hub.repos[REPO].commits) == 2
    assert hub.seen("xet") == []
    assert puts(hub) == 2


# --- edited cards


def test_edits_of_the_card_are_kept(hub: LocalHub, model: Path, newer: Path) -> None:
    publish_hub(model, REPO)
    repo = hub.repos[REPO]
    text = repo.head().files["README.md"].decode()
    mine = text.replace("A small flow.", "A small flow, made by Ada.\n\n## Thanks\n\nTo Bob.")
    mine = mine.replace("license: apache-2.0\n", "license: apache-2.0\nlanguage: en\n")
    mine = mine.replace("- cascadezoo\n", "- cascadezoo\n- ada\n")
    repo.commit({"README.md": mine.encode()})
    done = publish_hub(newer, REPO)
    assert done.card_kept
    kept = repo.head().files["README.md"].decode()
    assert "made by Ada.\n\n## Thanks\n\nTo Bob." in kept
    assert "| kid | 0.5 |" in kept
    assert "1.5" not in kept
    front = read_front(kept)
    assert isinstance(front, dict)
    assert front["language"] == "en"
    assert front["tags"] == ["cascadezoo", "image-generation", "ada"]
    assert repo.head().files[WEIGHTS] == new()[WEIGHTS]
    # again, and with a third version: the card still counts as edited
    assert publish_hub(newer, REPO).changed is False
    publish_hub(model, REPO)
    assert repo.head().files["README.md"].decode() == kept.replace("0.5", "1.5").replace(
        _digest(kept), _digest(text)
    )


def _digest(text: str) -> str:
    match = re.search("begin figures ([0-9a-f]{16})", text)
    assert match is not None
    return match[1]


def test_unedited_card_is_replaced(hub: LocalHub, model: Path, newer: Path) -> None:
    publish_hub(model, REPO)
    done = publish_hub(newer, REPO)
    assert not done.card_kept
    assert hub.repos[REPO].head().files["README.md"] == published(new())["README.md"]


def test_locally_edited_card_replaces_its_older_version(hub: LocalHub, model: Path) -> None:
    for text in ("first", "second"):
        (model / "README.md").write_bytes(card(1.0) + f"\n{text}\n".encode())
        assert publish_hub(model, REPO).card_kept is False
        body = hub.repos[REPO].head().files["README.md"].decode()
        assert body.endswith(f"\n{text}\n")
    assert "first" not in body


def test_card_in_an_empty_repo_is_kept(hub: LocalHub, model: Path) -> None:
    hub.make_repo(REPO, {"README.md": b"# Coming soon\n"})
    assert publish_hub(model, REPO).card_kept
    text = hub.repos[REPO].head().files["README.md"].decode()
    assert text.endswith("---\n# Coming soon\n")
    assert "library_name: cascadezoo" in text


BODIES = st.lists(
    st.one_of(
        st.text("ab\n- #<!>", max_size=20),
        st.builds(block, st.sampled_from(["use", "figures"]), st.text("xyz\n", max_size=8)),
        st.just(
            "<!-- cascadezoo:begin use 0000000000000000 -->\nmine\n<!-- cascadezoo:end use -->"
        ),
    ),
    max_size=5,
).map("\n".join)
FRONTS = st.sampled_from(
    [
        *(
            "",
            "---\n---\n",
            "---\n[\n---\n",
            "---\na: &x 1\nb: *x\n---\n",
            FRONT_ONLY := "---\na: 1",
        ),
        "---\r\ntags: [me]\r\nlicense: mit\r\n---\r\n",
        "---\nlanguage: de\ntags:\n- me\n- cascadezoo\ndate: 2024-01-01\n---\n",
    ]
)


@settings(max_examples=300, deadline=None)
@given(front=FRONTS, body=BODIES)
def test_merge_is_idempotent(front: str, body: str) -> None:
    ours = card(2.0).decode()
    body = f"# Title\n{body}"
    once = merge_cards(ours, front + body)
    assert merge_cards(ours, once) == once
    assert once.startswith("---\n")
    merged = read_front(once)
    assert isinstance(merged, dict)
    assert (merged["library_name"], merged["license"]) == ("cascadezoo", "apache-2.0")
    outside = re.sub(r"<!-- cascadezoo:begin.*?cascadezoo:end [a-z]+ -->", "", body, flags=re.S)
    lines = once.splitlines()
    assert [line for line in outside.splitlines() if line not in once] == [], lines
    if "\nmine\n" in body:
        assert "\nmine\n" in once


def test_checks_precede_changes(hub: LocalHub, model: Path) -> None:
    publish_hub(model, REPO)
    first = next(i for i, r in enumerate(hub.requests) if re.search(CHANGES, str(r)))
    before = [str(r).partition("?")[0] for r in hub.requests[:first]]
    assert before == [
        "GET /api/whoami-v2",
        f"GET /api/models/{REPO}",
        "POST /api/validate-yaml",
    ]
