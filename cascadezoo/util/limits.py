"""Limits and patterns of untrusted input: file sizes, commits, digests, names."""

from __future__ import annotations

import re

__all__ = [
    "COMMIT",
    "LARGEST_CARD",
    "LARGEST_HEADER",
    "LARGEST_JSON",
    "LARGEST_METRICS",
    "LARGEST_SAMPLES",
    "LARGEST_WEIGHTS",
    "REPO",
    "REVISION",
    "SHA256",
    "SHIPPED",
    "is_commit",
    "is_sha256",
]

LARGEST_JSON = 1 << 20
"""Maximum bytes of a spec, a config.json or a manifest."""

LARGEST_METRICS = 16 << 20
"""Maximum bytes of a metrics.json."""

LARGEST_CARD = 4 << 20
"""Maximum bytes of a model card."""

LARGEST_SAMPLES = 64 << 20
"""Maximum bytes of samples.png."""

LARGEST_WEIGHTS = 1 << 40
"""Maximum bytes of the weights of one stage."""

LARGEST_HEADER = 16 << 20
"""Maximum bytes of the header of a safetensors file; enough for 100,000 tensors."""

COMMIT = r"^[0-9a-f]{40}$"
"""A full commit hash."""

SHA256 = r"^[0-9a-f]{64}$"
"""A sha256 in hex."""

REPO = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*/[A-Za-z0-9_][A-Za-z0-9_.-]*$"
"""A repo on the Hub, ``org/name``."""

REVISION = re.compile(r"(?![./-])[A-Za-z0-9_./-]{1,200}(?<![./])")
"""A branch, tag or commit."""

SHIPPED = re.compile(r"[a-z0-9-]+")
"""The name of a shipped spec or sweep."""


def is_commit(text: str | None) -> bool:
    r"""Whether a text is a full commit hash.

    >>> is_commit("0" * 40), is_commit("main"), is_commit("0" * 40 + "\n"), is_commit(None)
    (True, False, False, False)
    """
    return text is not None and re.fullmatch(r"[0-9a-f]{40}", text) is not None


def is_sha256(text: str) -> bool:
    """Whether a text is a sha256 in hex."""
    return re.fullmatch(r"[0-9a-f]{64}", text) is not None
