"""Two versions of a small model as bytes, and helpers for the publish tests."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from hub_server import Commit, LocalHub, Repo
from PIL import Image
from pull_cases import make_files, resealed

from cascadezoo.cards.render_card import block

REPO = "org/lone"
WEIGHTS = "stages/coarse/model.safetensors"
COMMIT = r"POST .*/commit/"
PUT = r"PUT /lfs/"
ALWAYS = 10_000
CHANGES = r"^(POST .*/(create|preupload|batch|commit|branch|tag)|PUT|DELETE)"
"""Requests that create or send something."""

FRONT = """\
---
library_name: cascadezoo
license: apache-2.0
pipeline_tag: unconditional-image-generation
tags:
- cascadezoo
- image-generation
---
"""


def card(value: float) -> bytes:
    """A card in the form that a build writes."""
    use = "## How to use it\n\n`cascadezoo sample path/to/lone`"
    figures = f"## Figures\n\n| kid | {value} |"
    parts = ["# lone", "A small flow.", block("use", use), block("figures", figures)]
    return (FRONT + "\n" + "\n\n".join(parts) + "\n").encode()


def picture(shade: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 0, 0)).save(out, "png")
    return out.getvalue()


@cache
def old() -> Mapping[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        files = make_files(Path(folder), seed=0)
    return _seal(files, card(1.5), picture(10))


@cache
def new() -> Mapping[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        files = make_files(Path(folder), seed=1)
    return _seal(files, card(0.5), picture(20))


def _seal(files: Mapping[str, bytes], text: bytes, samples: bytes) -> dict[str, bytes]:
    return resealed(dict(files) | {"README.md": text, "samples.png": samples})


def write(files: Mapping[str, bytes], folder: Path) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def published(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files after a publish: the commands on the card name the repo."""
    text = files["README.md"].decode()
    use = "## How to use it\n\n`cascadezoo sample {}`"
    text = text.replace(block("use", use.format("path/to/lone")), block("use", use.format(REPO)))
    return resealed(files, **{"README.md": text.encode()})


def model_in(commit: Commit) -> dict[str, object]:
    """The files of a commit, with config.json parsed."""
    files = {n: c for n, c in commit.files.items() if n != ".gitattributes"}
    return files | {"config.json": json.loads(files["config.json"])}


def holds(repo: Repo, files: Mapping[str, bytes], revision: str = "main") -> bool:
    """Whether a branch holds exactly the published model."""
    expected: dict[str, object] = dict(published(files))
    expected["config.json"] = json.loads(published(files)["config.json"])
    return model_in(repo.head(revision)) == expected


def changes(hub: LocalHub) -> list[str]:
    return [f"{r.method} {r.path.partition('?')[0]}" for r in hub.seen(CHANGES)]


def puts(hub: LocalHub) -> int:
    """The number of objects that were sent completely."""
    return len([r for r in hub.seen("^PUT /lfs") if r.status == 200])
