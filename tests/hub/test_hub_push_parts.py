"""The detection of secrets, false safetensors and invalid front matter."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from push_cases import WEIGHTS, new, old

from cascadezoo.cards.check_card import card_faults
from cascadezoo.errors import ModelError
from cascadezoo.hub.publish.secrets import check_safetensors, secret_in, secret_names

TOKEN = b"hf_" + b"Ab3" * 12
KEY = b"AKIA" + b"ABCD" * 4
PRIVATE = b"-----BEGIN RSA " + b"PRIVATE KEY-----\n"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
@example(struct.pack("<Q", 2**63) + b"{")
@example(struct.pack("<Q", 2) + b"[]")
@example(struct.pack("<Q", 60000) + b"[" * 60000)
@example(struct.pack("<Q", 22) + b'{"__metadata__":[1,2]}')
@example(struct.pack("<Q", 9) + b'{"a":"b"}')
def test_only_valid_files_pass_as_safetensors(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    from safetensors import SafetensorError, deserialize

    path = tmp_path_factory.mktemp("header") / "w"
    path.write_bytes(data)
    try:
        with path.open("rb") as file:
            check_safetensors(file, "w")
    except ModelError:
        return
    try:
        deserialize(data)
    except SafetensorError as error:
        raise AssertionError(data) from error


def test_real_weights_are_safetensors(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    tensors = {
        "f": torch.ones(3, 5),
        "h": torch.ones(2, dtype=torch.bfloat16),
        "i": torch.ones((), dtype=torch.int64),
        "b": torch.ones(7, dtype=torch.bool),
        "none": torch.ones(0, 4),
    }
    save_file(tensors, tmp_path / "w", metadata={"format": "pt"})
    with (tmp_path / "w").open("rb") as file:
        assert b'"__metadata__"' in check_safetensors(file, "w")


def test_file_names_of_secrets(tmp_path: Path) -> None:
    secret = [".env", ".env.local", "a.PEM", "b/server.key", ".ssh/x", "credentials.json", "token"]
    plain = ["README.md", "config.json", WEIGHTS, "tokenizer.json", "keys/a.txt", "environment.yml"]
    for name in (*secret, *plain):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    assert sorted(secret_names(tmp_path)) == sorted(secret)


@pytest.mark.parametrize(
    "text",
    [
        TOKEN,
        KEY,
        PRIVATE,
        b"-----BEGIN PRIVATE " + b"KEY-----",
        b"ghp_" + b"a1" * 18,
        b"AWS_SECRET_ACCESS_KEY=" + b"a/1+" * 10,
        b"AIza" + b"a" * 35,
        b"sk-proj-" + b"a1" * 20,
        b"xoxb-" + b"1" * 24,
    ],
)
def test_common_secrets_are_detected(text: bytes) -> None:
    assert str(secret_in(b"one\ntwo " + text)).endswith("(line 2)")


def test_content_of_a_model_is_not_a_secret() -> None:
    for files in (old(), new()):
        assert [n for n, content in files.items() if secret_in(content)] == []
    for text in (
        b"hf_hub_download(repo)",
        b"sha256: " + b"ab" * 32,
        b"task-conditional-generation",
    ):
        assert secret_in(text) is None


@settings(max_examples=300, deadline=None)
@given(st.text("-\n:[]{}&*!#|>'\"%@` abc0.", max_size=60))
def test_any_front_matter_is_checked(text: str) -> None:
    faults = card_faults(f"---\n{text}\n---\n# x\n")
    assert faults, "the library is not named"


def test_huge_front_matter() -> None:
    lines = ["a0: &a0 [x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 30)]
    assert "aliases" in card_faults("---\n" + "\n".join(lines) + "\n---\n")[0]
    assert card_faults("---\n" + "[" * 20_000 + "\n---\n")
    assert "characters" in card_faults("---\na: " + "b" * 70_000 + "\n---\n")[0]
