"""Atomic writes, sha256 of files, and the cache folder."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

__all__ = ["cache_folder", "sha256_of", "write_atomically"]


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file. After a crash it holds either its old or its new content, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def cache_folder() -> Path:
    """``$CASCADEZOO_CACHE``, or ``~/.cache/cascadezoo``."""
    root = os.environ.get("CASCADEZOO_CACHE")
    return Path(root).expanduser() if root else Path.home() / ".cache" / "cascadezoo"
