"""A small model as bytes, and helpers for the tests of pulls and hostile models."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lone_spec import lone_spec

REPO = "org/lone"
WEIGHTS = "stages/coarse/model.safetensors"
SPEC = lone_spec()
CARD = b"---\nlibrary_name: cascadezoo\n---\n# lone\n"
METRICS = b'{"figures": []}\n'


def make_files(folder: Path, seed: int = 0) -> dict[str, bytes]:
    """The files of a model whose images are noise, set by the seed."""
    import torch

    from cascadezoo import Cascade, __version__
    from cascadezoo.model_folder.integrity import seal

    cascade = Cascade.from_spec(SPEC)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in cascade.parameters():
            weight.add_(0.2 * torch.randn(weight.shape, generator=random))
    cascade.save_pretrained(folder)
    (folder / "README.md").write_bytes(CARD)
    (folder / "metrics.json").write_bytes(METRICS)
    seal(folder, cascade.spec, __version__)
    return contents(folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def record(content: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


def changed(files: Mapping[str, bytes], /, **updates: Any) -> dict[str, bytes]:
    """The same files with other keys in config.json."""
    config = json.loads(files["config.json"])
    config.update(updates)
    return {**files, "config.json": json.dumps(config).encode()}


def resealed(files: Mapping[str, bytes], /, **more: bytes) -> dict[str, bytes]:
    """The files with some replaced (names with / as __), and a matching config.json."""
    files = {**files, **{n.replace("__", "/"): content for n, content in more.items()}}
    rows = {n: record(c) for n, c in files.items() if n != "config.json"}
    return changed(files, files=rows)


def lines(hub: Any) -> list[str]:
    """The received requests without their queries."""
    return [f"{r.method} {r.path.partition('?')[0]}" for r in hub.requests]


def working_files() -> list[str]:
    """The names in the current folder."""
    return sorted(path.name for path in Path().iterdir())


def write_files(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def check_readable(error: BaseException) -> str:
    """Check that a terminal can show the error."""
    text = str(error)
    assert all(c.isprintable() or c == "\n" for c in text), repr(text)
    assert len(text) < 20_000
    return text


def with_spec(config: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """A config.json with other keys in its spec."""
    return {**config, "spec": {**config["spec"], **spec}}


def stage(config: dict[str, Any], name: str = "coarse", **settings: Any) -> dict[str, Any]:
    """The first stage of a config.json with other settings."""
    row = copy.deepcopy(config["spec"]["stages"][0])
    return {**row, "name": name, "config": {**row["config"], **settings}}
