"""What must never be published: secrets, and files that are no safetensors whatever their name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from cascadezoo.errors import ModelError
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
    ("a token of the Hub", rb"\b(?:hf_|api_org_)[A-Za-z0-9]{30,}"),
    ("an access key of AWS", rb"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    ("a secret key of AWS", rb"(?i)aws_?secret_?access_?key[\"'\s]*[:=][\"'\s]*[A-Za-z0-9/+]{30,}"),
    ("a private key", rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY"),
    ("a token of GitHub", rb"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{50,})"),
    ("a token of GitLab", rb"\bglpat-[A-Za-z0-9_-]{20,}"),
    ("a token of Slack", rb"\bxox[abprs]-[A-Za-z0-9-]{20,}"),
    ("an API key of Google", rb"\bAIza[0-9A-Za-z_-]{35}"),
    ("an API key", rb"\bsk-(?:[a-z]+-)*[A-Za-z0-9_-]{32,}"),
    ("a signed token", rb"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
)
_PATTERNS = tuple((what, re.compile(pattern)) for what, pattern in _CONTENTS)
_VARIABLE = re.compile(r"(TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_?KEY)", re.IGNORECASE)
_SHORTEST = 16
"""Characters of a variable's value below which it may be anything, such as a user's name."""


def secret_names(folder: Path) -> Iterator[str]:
    """The files below a folder whose names say that they hold secrets, as relative paths."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        name = parts[-1].lower()
        if any(part.lower() in _FOLDERS for part in parts[:-1]) or (
            any(fnmatchcase(name, pattern) for pattern in _NAMES) and not path.is_dir()
        ):
            yield "/".join(parts)


def secret_in(content: bytes, *others: str | None) -> str | None:
    """What a file seems to hold that must stay secret, and where; None where it holds nothing.

    Besides the forms of well-known tokens, the values of this process's own variables such as
    ``HF_TOKEN`` or ``WANDB_API_KEY`` are looked for. The secret itself is never told.

    Args:
        content: of the file, or of the part that could hold text.
        others: further secrets, such as the token in use.
    """
    for what, pattern in _PATTERNS:
        if (match := pattern.search(content)) is not None:
            return f"{what} (line {_line(content, match.start())})"
    known = [(f"the value of {k}", v) for k, v in os.environ.items() if _VARIABLE.search(k)]
    known += [("the token in use", value) for value in others if value]
    for what, value in known:
        if len(value) >= _SHORTEST and (at := content.find(value.encode(errors="replace"))) >= 0:
            return f"{what} (line {_line(content, at)})"
    return None


def _line(content: bytes, at: int) -> int:
    return content.count(b"\n", 0, at) + 1


def check_safetensors(path: Path, name: str) -> bytes:
    """Make sure that a file is safetensors throughout, by its header; tensors are not read.

    Args:
        path: the file.
        name: how messages name it.

    Returns:
        The header, which may hold text.

    Raises:
        ModelError: it is something else, such as a pickle with another name.
    """
    from safetensors import SafetensorError, safe_open

    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 10 or length > min(size - 8, LARGEST_HEADER):
            raise _no_safetensors(name, "it does not begin with the length of a header")
        header = file.read(length)
    try:
        with safe_open(path, framework="numpy"):
            return header
    except SafetensorError as error:
        raise _no_safetensors(name, clean_remote(error, 200)) from None


def _no_safetensors(name: str, why: str) -> ModelError:
    return ModelError(
        f"{name} is not a safetensors file: {why}",
        hint="only safetensors are published; cascade.save_pretrained(folder) writes them",
        code="model-not-safetensors",
        name=name,
    )
