"""The small models and specs that cases spoil, and the means to seal what was spoilt."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from pathlib import Path
from typing import Any

from campaigns.outcome import ROOT
from lone_spec import lone_spec

__all__ = [
    "LONE",
    "lone_model",
    "lone_run",
    "published_model",
    "reseal",
    "safetensors",
    "spec_file",
]

LONE = lone_spec(
    steps=2, evaluation={"metrics": ["kid"], "samples": 16, "subset_size": 8, "subsets": 2}
)


def spec_file(folder: Path, spec: dict[str, Any] | None = None) -> Path:
    """Write the small spec, or another."""
    path = folder / "spec.json"
    path.write_text(json.dumps(LONE if spec is None else spec), encoding="utf-8")
    return path


def lone_run(folder: Path) -> Path:
    """Build the small spec: a run folder with its model, in a process that may use torch."""
    from cascadezoo.build.build import build_cascade

    folder.mkdir(parents=True, exist_ok=True)
    build_cascade(spec_file(folder), folder / "run", device="cpu")
    return folder / "run"


def lone_model(folder: Path) -> Path:
    """The model of :func:`lone_run` alone."""
    run = lone_run(folder / "made")
    shutil.copytree(run / "model", folder / "lone")
    return folder / "lone"


def published_model(folder: Path) -> Path:
    """A copy of a model of three stages that an earlier version published."""
    shutil.copytree(ROOT / "tests" / "published" / "tiny", folder / "tiny")
    return folder / "tiny"


def reseal(model: Path, config: dict[str, Any]) -> None:
    """Write a config.json that vouches for the files as they are, and for the spec if it can."""
    for name in list(config.get("files", {})):
        path = model / name
        if path.is_file() and path.stat().st_size < 64 << 20:
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            config["files"][name] = {"sha256": digest, "size": len(content)}
    _seal_spec(config)
    path = model / "config.json"
    if not path.is_symlink() and (path.is_file() or not path.exists()):
        path.write_text(json.dumps(config), encoding="utf-8", errors="surrogatepass")


def _seal_spec(config: dict[str, Any]) -> None:
    from pydantic import ValidationError

    from cascadezoo.errors import CascadezooError
    from cascadezoo.spec import CascadeSpec

    try:
        config["spec_digest"] = CascadeSpec.model_validate(config["spec"]).digest()
    except (ValidationError, CascadezooError, KeyError, TypeError, ValueError, RecursionError):
        return  # what does not validate has no digest


def safetensors(
    header: bytes | dict[str, Any], body: bytes = b"", length: int | None = None
) -> bytes:
    """The bytes of a safetensors file with any header and any claim of its length."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    claim = len(raw) if length is None else length
    return struct.pack("<Q", claim % 2**64) + raw + body
