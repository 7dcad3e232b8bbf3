"""Limits and patterns of untrusted input: file sizes, times, commits, digests, names."""

from __future__ import annotations

import os
import re
import sys

from cascadezoo.errors import InputError

__all__ = [
    "COMMIT",
    "HUB_ANSWER",
    "HUB_PATIENCE",
    "HUB_SECONDS",
    "HUB_SPEED",
    "HUB_STALL",
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
    "LARGEST_WEIGHTS",
    "MOST_CLASSES",
    "PROJECT_NAME",
    "PROJECT_URL",
    "REPO",
    "REVISION",
    "SHA256",
    "SHIPPED",
    "byte_limit",
    "is_commit",
    "is_out_of_memory",
    "is_sha256",
    "seconds_limit",
]

PROJECT_NAME = r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"
"""The name of a distribution."""

PROJECT_URL = r"^https?://[A-Za-z0-9][A-Za-z0-9.:-]*(/[A-Za-z0-9._~%+@=#/-]*)?$"
"""The address of a project. Without password, query, quotes and letters that look like others."""

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

HUB_ANSWER = ("CASCADEZOO_HUB_ANSWER", 8 << 20)
"""Variable and default: maximum bytes of the answers to one call of the Hub, without files."""

HUB_SECONDS = ("CASCADEZOO_HUB_SECONDS", 120.0)
"""Variable and default: maximum seconds of one call of the Hub, in addition to its files' time."""

HUB_SPEED = ("CASCADEZOO_HUB_SPEED", 20_000)
"""Variable and default: the lowest average bytes per second at which files are transferred."""

HUB_STALL = ("CASCADEZOO_HUB_STALL", 60.0)
"""Variable and default: maximum seconds without a byte."""

HUB_PATIENCE = ("CASCADEZOO_HUB_PATIENCE", 60.0)
"""Variable and default: maximum seconds of failures and pauses in one pull or publish."""
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


def is_commit(text: object) -> bool:
    r"""Whether a value is a full commit hash.

    >>> is_commit("0" * 40), is_commit("main"), is_commit("0" * 40 + "\n"), is_commit(None)
    (True, False, False, False)
    """
    return isinstance(text, str) and re.fullmatch(r"[0-9a-f]{40}", text) is not None


def is_sha256(text: object) -> bool:
    """Whether a value is a sha256 in hex."""
    return isinstance(text, str) and re.fullmatch(r"[0-9a-f]{64}", text) is not None


def seconds_limit(variable: str, default: float) -> float:
    """A limit in seconds: the environment variable, or its default.

    Raises:
        InputError: the variable is not a positive number.
    """
    text = os.environ.get(variable, "")
    if not text:
        return default
    valid = re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) is not None
    if not valid or float(text) <= 0:
        raise InputError(
            f"{variable}={text!r} is not a positive number of seconds",
            hint=f"unset {variable}, or set it to a number such as {default:g}",
            code="input-limit-form",
            name=variable,
        )
    return float(text)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory is exhausted, on the CPU or on a device."""
    if isinstance(error, MemoryError):
        return True
    torch = sys.modules.get("torch")  # only if something imported it
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
