"""Detects what must not be published: secrets, and weights that are not safetensors."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import BinaryIO

from cascadezoo.errors import ModelError
from cascadezoo.util.files import opened_path
from cascadezoo.util.limits import LARGEST_HEADER
from cascadezoo.util.text import clean_remote

__all__ = ["check_safetensors", "secret_in", "secret_names"]

_NAMES = (
    *(".env", ".env.*", "*.env", ".netrc", "_netrc", ".pypirc", ".npmrc", ".pgpass", ".htpasswd"),
    *("*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.keystore", "*.kdbx", "*.ppk", "*.gpg"),
    *("id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", "known_hosts", "authorized_keys"),
    *("credentials", "credentials.*", "secret", "secrets", "secret.*", "secrets.*", "*.secret"),
    *("token", "token.*", "*.token", "stored_tokens", "service-account*.json", ".git-credentials"),
    *("wandb-settings", "kaggle.json", "*.tfstate"),
)
_FOLDERS = frozenset({".git", ".aws", ".ssh", ".gnupg", ".huggingface", ".kube", ".docker"})
_CONTENTS = (
    ("a Hub token", rb"\b(?:hf_|api_org_)[A-Za-z0-9]{30,}"),
    ("an AWS access key", rb"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    ("an AWS secret key", rb"(?i)aws_?secret_?access_?key[\"'\s]*[:=][\"'\s]*[A-Za-z0-9/+]{30,}"),
    ("a private key", rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY"),
    ("a GitHub token", rb"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{50,})"),
    ("a GitLab token", rb"\bglpat-[A-Za-z0-9_-]{20,}"),
    ("a Slack token", rb"\bxox[abprs]-[A-Za-z0-9-]{20,}"),
    ("a Google API key", rb"\bAIza[0-9A-Za-z_-]{35}"),
    ("an API key", rb"\bsk-(?:[a-z]+-)*[A-Za-z0-9_-]{32,}"),
    ("a signed token", rb"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
)
_PATTERNS = tuple((what, re.compile(pattern)) for what, pattern in _CONTENTS)
_VARIABLE = re.compile(r"(TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_?KEY)", re.IGNORECASE)
_SHORTEST = 16
"""Minimum length of a secret in a variable; a shorter value may be a user's name."""


def secret_names(folder: Path) -> Iterator[str]:
    """The files below a folder with names typical of secrets, as relative paths."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        name = parts[-1].lower()
        if any(part.lower() in _FOLDERS for part in parts[:-1]) or (
            any(fnmatchcase(name, pattern) for pattern in _NAMES) and not path.is_dir()
        ):
            yield "/".join(parts)


def secret_in(content: bytes, *others: str | None) -> str | None:
    """Search the content of a file for a secret.

    The search covers common forms of tokens and the values of this process's variables such as
    ``HF_TOKEN`` or ``WANDB_API_KEY``.

    Args:
        content: the content of the file, or the part of it that can contain text.
        others: further secrets, such as the current token.

    Returns:
        The kind of the first secret and its line, without the secret; None if there is none.
    """
    for what, pattern in _PATTERNS:
        if (match := pattern.search(content)) is not None:
            return f"{what} (line {_line(content, match.start())})"
    known = [(f"the value of {k}", v) for k, v in os.environ.items() if _VARIABLE.search(k)]
    known += [("the current token", value) for value in others if value]
    for what, value in known:
        if len(value) >= _SHORTEST and (at := content.find(value.encode(errors="replace"))) >= 0:
            return f"{what} (line {_line(content, at)})"
    return None


def _line(content: bytes, at: int) -> int:
    return content.count(b"\n", 0, at) + 1


def check_safetensors(file: BinaryIO, name: str) -> bytes:
    """Check by its header that a file is safetensors; tensors are not read.

    Args:
        file: the open file.
        name: the file's name in messages.

    Returns:
        The header, which may contain text.

    Raises:
        ModelError: it has another format, such as pickle.
    """
    from safetensors import SafetensorError, safe_open

    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if size < 10 or length > min(size - 8, LARGEST_HEADER):
        raise _not_safetensors(name, "it does not begin with the length of a header")
    header = file.read(length)
    try:
        with safe_open(opened_path(file), framework="numpy"):
            return header
    except SafetensorError as error:
        raise _not_safetensors(name, clean_remote(error, 200)) from None


def _not_safetensors(name: str, why: str) -> ModelError:
    return ModelError(
        f"{name} is not a safetensors file: {why}",
        hint="only safetensors can be published; cascade.save_pretrained(folder) writes them",
        code="model-not-safetensors",
        name=name,
    )
