"""What is never published; a refusal creates and sends nothing."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from errors_help import raises
from hub_server import Fault, LocalHub
from pull_cases import contents, resealed
from push_cases import CHANGES, REPO, WEIGHTS, card, holds, new, old, write

from cascadezoo.errors import (
    CascadezooError,
    HubDeniedError,
    HubNotFoundError,
    HubRefusedError,
    InputError,
    ModelError,
    ModelReferenceError,
)
from cascadezoo.hub.publish.commit import publish_hub

TOKEN = b"hf_" + b"Ab3" * 12
KEY = b"AKIA" + b"ABCD" * 4
PRIVATE = b"-----BEGIN RSA " + b"PRIVATE KEY-----\n"


def reseal(folder: Path, **more: bytes) -> None:
    write(resealed(contents(folder), **more), folder)


def put(name: str, content: bytes = b"x") -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)

    return spoil


def flip(folder: Path) -> None:
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (folder / WEIGHTS).write_bytes(data)


def metadata(text: str) -> bytes:
    """A safetensors file without tensors and with a text in its header."""
    header = json.dumps({"__metadata__": {"format": "pt", "note": text}}).encode()
    return struct.pack("<Q", len(header)) + header


SPOILED: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "a changed byte": (flip, "damaged", WEIGHTS),
    "a missing file": (lambda m: (m / WEIGHTS).unlink(), "damaged", WEIGHTS),
    "a file that is not listed": (put("notes.txt"), "file-strange", "notes.txt"),
    "code": (put("modeling.py", b"import os"), "file-strange", "modeling.py"),
    "a pickle beside the weights": (
        put("stages/coarse/pytorch_model.bin"),
        "file-strange",
        "pytorch_model.bin",
    ),
    "weights that are a pickle": (
        lambda m: _weights(m, pickle.dumps({"w": [1.0] * 100})),
        "not-safetensors",
        WEIGHTS,
    ),
    "weights with a tail": (
        lambda m: _weights(m, old()[WEIGHTS] + b"PK\x03\x04"),
        "not-safetensors",
        WEIGHTS,
    ),
    "a secret in the weights' header": (
        lambda m: _weights(m, metadata(f"trained with {TOKEN.decode()}")),
        "secret",
        WEIGHTS,
    ),
    "samples that are no picture": (
        lambda m: reseal(m, **{"samples.png": b"MZ"}),
        "not-png",
        "samples.png",
    ),
    "metrics that are no JSON": (
        lambda m: reseal(m, **{"metrics.json": b"{"}),
        "not-json",
        "metrics.json",
    ),
    "a link": (lambda m: _link(m), "damaged", "samples.png"),
    "no weights of a stage": (lambda m: _without_weights(m), "stage-without-weights", "'coarse'"),
    "a .env": (put(".env", b"A=1"), "secret-file", ".env"),
    "a key": (put("stages/server.pem"), "secret-file", "stages/server.pem"),
    "an ssh key": (put("id_ed25519"), "secret-file", "id_ed25519"),
    "a folder of git": (put(".git/config"), "secret-file", ".git/config"),
    "a token on the card": (
        lambda m: (m / "README.md").write_bytes(card(1.0) + TOKEN),
        "secret",
        "README.md",
    ),
    "an AWS key in the metrics": (
        lambda m: reseal(m, **{"metrics.json": b'{"figures": [], "k": "%s"}' % KEY}),
        "secret",
        "metrics.json",
    ),
    "a private key on the card": (
        lambda m: (m / "README.md").write_bytes(card(1.0) + PRIVATE),
        "secret",
        "README.md",
    ),
    "a card without metadata": (put("README.md", b"# lone\n"), "card-metadata", "README.md"),
    "a card with broken YAML": (
        put("README.md", b"---\na: [\n---\n"),
        "card-metadata",
        "README.md",
    ),
    "a card of another library": (
        put("README.md", b"---\nlibrary_name: diffusers\n---\n"),
        "card-metadata",
        "library_name",
    ),
    "a card with a figure that is none": (
        put(
            "README.md",
            b"---\nlibrary_name: cascadezoo\nmodel-index:\n- name: a\n  results:\n"
            b"  - task: {type: x}\n    dataset: {type: y, name: z}\n"
            b"    metrics: [{type: kid, value: .nan}]\n---\n",
        ),
        "card-metadata",
        "metrics.0.value",
    ),
    "a card that is not text": (put("README.md", b"---\xff"), "card-not-text", "README.md"),
}


def _weights(folder: Path, content: bytes) -> None:
    (folder / WEIGHTS).write_bytes(content)
    reseal(folder)


def _link(folder: Path) -> None:
    (folder / "samples.png").unlink()
    (folder / "samples.png").symlink_to("/etc/hostname")


def _without_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    reseal(folder)


@pytest.mark.parametrize("case", SPOILED)
def test_invalid_models_fail_before_the_first_request(
    hub: LocalHub, model: Path, case: str
) -> None:
    spoil, code, shown = SPOILED[case]
    spoil(model)
    with pytest.raises(ModelError) as raised:
        publish_hub(model, REPO)
    assert raised.value.code == f"model-{code}"
    assert shown in raised.value.what
    assert raised.value.exit_code == 2
    assert raised.value.hint
    for secret in (TOKEN, KEY, PRIVATE):
        assert secret.decode().strip() not in str(raised.value)
    assert hub.requests == []


def test_current_token_and_secrets_of_the_environment_are_detected(
    hub: LocalHub, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "an-old-token-of-another-form")
    (model / "README.md").write_bytes(card(1.0) + b"an-old-token-of-another-form")
    with raises(ModelError, "model-secret", name="README.md"):
        publish_hub(model, REPO)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef0123")
    (model / "README.md").write_bytes(card(1.0) + b"\n0123456789abcdef0123")
    with raises(ModelError, "model-secret", name="README.md") as raised:
        publish_hub(model, REPO)
    assert "WANDB_API_KEY" in raised.value.what
    assert "0123456789abcdef0123" not in str(raised.value)
    assert hub.requests == []


def test_no_token(hub: LocalHub, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with raises(HubDeniedError, "hub-denied-no-token") as raised:
        publish_hub(model, REPO)
    assert "`hf auth login`" in str(raised.value.hint)
    assert raised.value.exit_code == 2
    assert hub.requests == []
    # the file of `hf auth login` is sufficient
    (hub.home).mkdir(exist_ok=True)
    (hub.home / "token").write_text(hub.token)
    publish_hub(model, REPO)
    assert holds(hub.repos[REPO], old())


@pytest.mark.parametrize(
    ("token", "code"),
    [("read_token", "hub-denied-token-read-only"), (None, "hub-denied-token-unknown")],
)
def test_invalid_or_read_only_token(
    hub: LocalHub, model: Path, monkeypatch: pytest.MonkeyPatch, token: str | None, code: str
) -> None:
    text = "hf_" + "z" * 34 if token is None else getattr(hub, token)
    monkeypatch.setenv("HF_TOKEN", text)
    with raises(HubDeniedError, code) as raised:
        publish_hub(model, REPO)
    assert "hf auth login" in str(raised.value.hint)
    assert text not in str(raised.value)
    assert [str(r) for r in hub.requests] == ["GET /api/whoami-v2"]


def test_foreign_namespace_and_repo(hub: LocalHub, model: Path) -> None:
    with raises(HubDeniedError, "hub-denied-token-rights"):
        publish_hub(model, "foreign/lone")
    hub.make_repo("foreign/repo", {"a.txt": b"a"})
    with raises(HubDeniedError, "hub-denied-token-rights"):
        publish_hub(model, "foreign/repo")
    assert hub.seen("^PUT") == []
    assert len(hub.repos["foreign/repo"].commits) == 2


def test_offline(hub: LocalHub, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with raises(InputError, "input-offline"):
        publish_hub(model, REPO)
    assert hub.requests == []


def test_metadata_that_only_the_hub_rejects(hub: LocalHub, model: Path, newer: Path) -> None:
    (model / "README.md").write_bytes(card(1.0).replace(b"apache-2.0", b"my-own"))
    with raises(HubRefusedError, "hub-refused-card-metadata") as raised:
        publish_hub(model, REPO)
    assert "license" in raised.value.what
    assert len(raised.value.what) < 500
    assert hub.seen(CHANGES) == []
    assert hub.repos == {}
    publish_hub(newer, REPO)
    hub.clear()
    with pytest.raises(HubRefusedError):
        publish_hub(model, REPO)
    assert hub.seen(CHANGES) == []
    assert holds(hub.repos[REPO], new())


def test_card_broken_on_the_hub(hub: LocalHub, model: Path, newer: Path) -> None:
    publish_hub(model, REPO)
    text = hub.repos[REPO].head().files["README.md"]
    broken = text.replace(b"license: apache-2.0\n", b"license: apache-2.0\ndatasets: 3\n")
    hub.repos[REPO].commit({"README.md": broken})
    hub.clear()
    with raises(ModelError, "model-card-metadata"):
        publish_hub(newer, REPO)
    assert hub.seen(CHANGES) == []


def test_public_repo_with_private_set(hub: LocalHub, model: Path) -> None:
    hub.make_repo(REPO)
    with raises(InputError, "input-repo-public"):
        publish_hub(model, REPO, private=True)
    assert hub.seen(CHANGES) == []
    # also if another user creates it at the same time
    hub.before("repos/create", lambda: hub.make_repo("org/other"))
    with raises(InputError, "input-repo-public"):
        publish_hub(model, "org/other", private=True)
    assert list(hub.repos["org/other"].head().files) == [".gitattributes"]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b'{"model_type": "bert"}', "repo-foreign"),
        (b"{", "repo-foreign"),
        (b'{"library_name": "cascadezoo"}', "repo-foreign"),
        (b" " * (1 << 20) + b"{}", "file-too-large"),
    ],
)
def test_model_of_another_library_is_unchanged(
    hub: LocalHub, model: Path, content: bytes, code: str
) -> None:
    repo = hub.make_repo(REPO, {"config.json": content})
    with raises(HubRefusedError, f"hub-refused-{code}") as raised:
        publish_hub(model, REPO)
    assert raised.value.hint
    assert hub.seen(CHANGES) == []
    assert repo.head().files["config.json"] == content


def test_tag_is_never_moved(hub: LocalHub, model: Path, newer: Path) -> None:
    done = publish_hub(model, REPO, tag="v1")
    hub.clear()
    with raises(InputError, "input-tag-taken", name="v1"):
        publish_hub(newer, REPO, tag="v1")
    assert hub.seen(CHANGES) == []
    assert hub.repos[REPO].tags == {"v1": done.commit}


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"revision": "a" * 40}, "commit-as-branch"),
        ({"revision": "../x"}, "ref-name"),
        ({"tag": "a b"}, "ref-name"),
        ({"tag": "v1", "create_pr": True}, "tag-on-pr"),
        ({"message": " \n"}, "commit-message-length"),
        ({"message": TOKEN.decode()}, "commit-message-secret"),
    ],
)
def test_invalid_options(hub: LocalHub, model: Path, options: dict[str, object], code: str) -> None:
    with raises(InputError, f"input-{code}") as raised:
        publish_hub(model, REPO, **options)  # type: ignore[arg-type]
    assert TOKEN.decode() not in str(raised.value)
    assert hub.requests == []


@pytest.mark.parametrize(
    "repo", ["lone", "a/b/c", "org/lone@main", "org/..", "org/a--b", "org/a.git", "", "org/a b"]
)
def test_invalid_repo_ids(hub: LocalHub, model: Path, repo: str) -> None:
    with pytest.raises(ModelReferenceError):
        publish_hub(model, repo)
    assert hub.requests == []


def test_pull_request_against_a_missing_branch(hub: LocalHub, model: Path) -> None:
    hub.make_repo(REPO)
    with raises(HubNotFoundError, "hub-not-found-revision"):
        publish_hub(model, REPO, create_pr=True, revision="nowhere")


@pytest.mark.parametrize("body", [b"<html>busy</html>", b"[]", b'{"sha": 3}', b"{}", b"\x1b[31m"])
@pytest.mark.parametrize("match", ["whoami", "GET /api/models/", "validate-yaml", "preupload"])
def test_malformed_responses(
    hub: LocalHub, model: Path, match: str, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    hub.make_repo(REPO)
    hub.fail(Fault("status", match, times=99, status=200, body=body))
    try:
        publish_hub(model, REPO)
    except CascadezooError as error:
        assert error.hint
        assert "\x1b" not in str(error)
        assert len(hub.repos[REPO].commits) == 1
    else:
        # An account without a name, or an empty check, does not prevent a publish.
        assert match in ("whoami", "validate-yaml")
        assert holds(hub.repos[REPO], old())
