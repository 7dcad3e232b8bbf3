"""autoencoder-kl.v1 and the Hub: a server of its own, asked from another process.

The Hub's address is read when huggingface_hub is imported.
"""

from __future__ import annotations

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
import torch
from kl_cases import loaded, pixels, save

from cascadezoo.stages.autoencoder_kl.files import CONFIG_FILE, WEIGHTS_FILE

FETCH = """
import sys
from cascadezoo.errors import CascadezooError
from cascadezoo.stages.autoencoder_kl.files import Source, fetch
for text in sys.argv[1:]:
    name, _, subfolder = text.partition("::")
    try:
        for file in ("config.json", "diffusion_pytorch_model.safetensors"):
            print(fetch(Source(name, subfolder=subfolder or None), file))
    except CascadezooError as error:
        print(type(error).__name__, error)
    print("---")
assert "torch" not in sys.modules
"""


class Hub(BaseHTTPRequestHandler):
    """Serves ``org/name/resolve/<revision>/<file>`` of one repository as the Hub does."""

    def __init__(self, folder: Path, *args: Any) -> None:
        self.folder = folder
        super().__init__(*args)

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        org, name, _, revision, *rest = self.path.strip("/").split("/") + [""] * 4
        path = self.folder / "/".join(rest).strip("/")
        fault = None
        if f"{org}/{name}" != "org/vae":
            fault = "GatedRepo" if name == "gated" else "RepoNotFound"
        elif revision not in ("main", "v2"):
            fault = "RevisionNotFound"
        elif not path.is_file():
            fault = "EntryNotFound"
        data = b"" if fault else path.read_bytes()
        self.send_response(403 if fault == "GatedRepo" else 404 if fault else 200)
        if fault:
            self.send_header("X-Error-Code", fault)
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
def folder(tmp_path: Path) -> Path:
    """What the repository ``org/vae`` holds."""
    save(tmp_path / "vae")
    return tmp_path / "vae"


@pytest.fixture
def hub(folder: Path) -> Iterator[str]:
    """The address of a Hub with the repository ``org/vae``."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, folder))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def ask(cache: Path, *sources: str, **environment: str) -> list[str]:
    """What :data:`FETCH` prints for each source."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", FETCH, *sources],
        env={**kept, "HF_HOME": str(cache), "NO_PROXY": "127.0.0.1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("---\n")[:-1]


def test_fetches_the_two_files_from_the_hub(hub: str, folder: Path, tmp_path: Path) -> None:
    answers = ask(
        tmp_path,
        "org/vae",
        "hf://org/vae@v2",
        "org/other",
        "org/gated",
        "org/vae@v9",
        "org/vae::vae",
        HF_ENDPOINT=hub,
    )
    paths = [Path(line) for line in answers[0].split()]
    assert [path.name for path in paths] == [CONFIG_FILE, WEIGHTS_FILE]
    stage = loaded(paths[0].parent)
    assert torch.equal(stage.upstream_target(pixels()), loaded(folder).upstream_target(pixels()))
    assert len(answers[1].split()) == 2
    for answer, start in zip(
        answers[2:],
        [
            "ModelReferenceError autoencoder-kl.v1: there is neither a folder nor a repository",
            "ModelReferenceError autoencoder-kl.v1: org/gated is open only to those",
            "ModelReferenceError autoencoder-kl.v1: org/vae has no revision 'v9'",
            "ModelError autoencoder-kl.v1: there is no config.json in the folder vae of org/vae",
        ],
        strict=True,
    ):
        assert answer.startswith(start)
    # What was fetched once is there without the Hub.
    again = ask(tmp_path, "org/vae", HF_ENDPOINT=hub, HF_HUB_OFFLINE="1")
    assert again[0] == answers[0]


def test_without_the_hub_three_ways_out_are_told(tmp_path: Path) -> None:
    (answer,) = ask(tmp_path, "org/vae::vae", HF_HUB_OFFLINE="1")
    assert answer.startswith(
        "WeightsUnavailableError autoencoder-kl.v1: the weights of org/vae/vae are"
    )
    for part in (
        "one of three: connect to the Hub",
        "hf download org/vae vae/config.json vae/diffusion_pytorch_model.safetensors --local-dir",
        "train an autoencoder of your own: autoencoder.v1",
    ):
        assert part in answer


@pytest.mark.slow
def test_a_closed_port_is_no_hub(tmp_path: Path) -> None:
    (answer,) = ask(tmp_path, "org/vae", HF_ENDPOINT="http://127.0.0.1:9")
    assert answer.startswith(
        "WeightsUnavailableError autoencoder-kl.v1: the weights of org/vae are not"
    )
