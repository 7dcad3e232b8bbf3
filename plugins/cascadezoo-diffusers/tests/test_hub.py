"""Sources on the Hub: a local server, and another process as client.

huggingface_hub reads the address at import.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cascadezoo_diffusers.config import UNet2DConfig
from cascadezoo_diffusers.source import WEIGHTS
from cases import save_pipeline

from cascadezoo import ImageShape


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_pipeline(tmp_path / "pipeline")
    return tmp_path / "pipeline"


FIT = """
import json, sys
from cascadezoo import ConfigError, ImageShape
from cascadezoo.errors import CascadezooError
from cascadezoo_diffusers.config import UNet2DConfig
from cascadezoo_diffusers.source import weights_of
for text in sys.argv[1:]:
    try:
        config = UNet2DConfig.model_validate({"source": text}).fit(ImageShape(3, 8))
        print(json.dumps([config.model_dump(), str(weights_of(config.place, "unet/config.json"))]))
    except (ConfigError, CascadezooError) as error:
        cause = error.__cause__ if isinstance(error, ConfigError) else error
        print(cause.code, str(error).replace(chr(10), " "))
assert "torch" not in sys.modules and "diffusers" not in sys.modules
"""


class Hub(BaseHTTPRequestHandler):
    """Serves ``org/name/resolve/<revision>/<file>`` of one repository as the Hub does."""

    def __init__(self, folder: Path, requested: list[str], *args: Any) -> None:
        self.folder = folder
        self.requested = requested
        super().__init__(*args)

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        org, name, _, revision, *rest = self.path.strip("/").split("/") + [""] * 4
        inner = "/".join(rest).strip("/")
        path = self.folder / inner
        error = None
        if f"{org}/{name}" != "org/model":
            error = "GatedRepo" if name == "gated" else "RepoNotFound"
        elif revision not in ("main", "0" * 40):
            error = "RevisionNotFound"
        elif not path.is_file():
            error = "EntryNotFound"
        data = b"" if error else path.read_bytes()
        if body and not error:
            self.requested.append(inner)
        self.send_response(403 if error == "GatedRepo" else 404 if error else 200)
        if error:
            self.send_header("X-Error-Code", error)
        else:
            self.send_header("ETag", f'"{path.name}-{len(data)}"')
            self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def hub(folder: Path) -> Iterator[tuple[str, list[str]]]:
    requested: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, folder, requested))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", requested
    server.shutdown()
    server.server_close()
    thread.join()


def run(home: Path, endpoint: str, *texts: str, offline: bool = False) -> list[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    env |= {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1"}
    env["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    if offline:
        env["HF_HUB_OFFLINE"] = "1"
    code = [sys.executable, "-c", FIT, *texts]
    result = subprocess.run(code, capture_output=True, text=True, env=env, timeout=60)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_three_files_are_downloaded(
    hub: tuple[str, list[str]], folder: Path, tmp_path: Path
) -> None:
    endpoint, requested = hub
    (line,) = run(tmp_path / "home", endpoint, "org/model")
    settings, weights = json.loads(line)
    assert sorted(requested) == sorted(
        ["unet/config.json", "scheduler/scheduler_config.json", f"unet/{WEIGHTS}"]
    )
    assert Path(weights).read_bytes() == (folder / "unet" / WEIGHTS).read_bytes()
    mine = UNet2DConfig.model_validate(settings)
    local = UNet2DConfig(source=str(folder)).fit(ImageShape(3, 8))
    assert mine.model_copy(update={"source": str(folder)}) == local
    # Cached files need no Hub.
    assert run(tmp_path / "home", endpoint, "org/model", offline=True) == [line]


def test_problems_of_a_repository_have_codes(
    hub: tuple[str, list[str]], folder: Path, tmp_path: Path
) -> None:
    endpoint, _ = hub
    (folder / "unet" / WEIGHTS).unlink()
    lines = run(
        tmp_path, endpoint, "org/absent", "org/gated", "org/model@old", "org/model", "org/a--b"
    )
    assert [line.partition(" ")[0] for line in lines] == [
        "reference-source-not-found",
        "reference-source-gated",
        "reference-source-revision",
        "model-source-file-missing",
        "reference-source-form",
    ]
    for line, value in zip(lines, ["org/absent", "org/gated", "'old'", WEIGHTS], strict=False):
        assert value in line
    (offline,) = run(tmp_path / "empty", endpoint, "org/model", offline=True)
    assert offline.startswith("weights-unavailable ")
    assert "HF_ENDPOINT" in offline
