"""Limits and patterns of untrusted input: file sizes, commits, digests, names."""

from __future__ import annotations

import os
import re

from cascadezoo.errors import InputError

__all__ = [
    "COMMIT",
    "LARGEST_ARRAYS",
    "LARGEST_CARD",
    "LARGEST_CLASS_NAMES",
    "LARGEST_HEADER",
    "LARGEST_JSON",
    "LARGEST_LABELS",
    "LARGEST_METRICS",
    "LARGEST_PICTURE",
    "LARGEST_PICTURE_FILE",
    "LARGEST_SAMPLES",
    "MOST_CLASSES",
    "REPO",
    "REVISION",
    "SHA256",
    "SHIPPED",
    "byte_limit",
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

LARGEST_HEADER = 16 << 20
"""Maximum bytes of the header of a safetensors file; enough for 100,000 tensors."""

LARGEST_ARRAYS = 4 << 20
"""Maximum bytes of the table of contents of an .npz file; enough for 50,000 arrays."""

LARGEST_CLASS_NAMES = 16 << 20
"""Maximum bytes of the array ``class_names`` of an .npz file."""

LARGEST_LABELS = 256 << 20
"""Maximum bytes of an array of labels in an .npz file: 33 million int64 numbers."""

MOST_CLASSES = 1_000_000
"""Maximum number of labels."""

LARGEST_PICTURE = 89_478_485
"""Maximum pixels of an image file of a dataset, e.g. 9459x9459; Pillow's own limit."""

LARGEST_PICTURE_FILE = 1 << 30
"""Maximum bytes of an image file of a dataset."""

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


def byte_limit(variable: str, default: int) -> int:
    """A limit in bytes that an environment variable can change.

    Args:
        variable: the name of the variable.
        default: the limit if the variable is unset or empty.

    Raises:
        InputError: the variable is not an integer.
    """
    text = os.environ.get(variable, "")
    if not text:
        return default
    if not text.isdecimal() or not text.isascii() or len(text) > 30:
        raise InputError(
            f"{variable}={text!r} is not a number of bytes",
            hint=f"unset {variable}, or set it to an integer such as {default}",
            code="input-limit-form",
            name=variable,
        )
    return int(text)


def is_commit(text: str | None) -> bool:
    r"""Whether a text is a full commit hash.

    >>> is_commit("0" * 40), is_commit("main"), is_commit("0" * 40 + "\n"), is_commit(None)
    (True, False, False, False)
    """
    return text is not None and re.fullmatch(r"[0-9a-f]{40}", text) is not None


def is_sha256(text: str) -> bool:
    """Whether a text is a sha256 in hex."""
    return re.fullmatch(r"[0-9a-f]{64}", text) is not None
