"""The fixture ``hub``: a Hugging Face Hub on 127.0.0.1, for this process and for subprocesses."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server import LocalHub
from pull_cases import make_files
from push_cases import REPO, new, old, write

from cascadezoo.hub.publish.commit import publish_hub

_OUTSIDE = (
    *("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_XET_CACHE", "HF_ASSETS_CACHE", "HF_TOKEN_PATH"),
    *("HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "XDG_CACHE_HOME"),
    *("HF_HUB_DISABLE_IMPLICIT_TOKEN", "HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"),
)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """A Hub for one test, and an environment without any other.

    The variables of ``hub.env`` are also set in this process. The client reads most of them at its
    import. The fixture therefore also sets the client's constants for Xet and for the developer's
    own files (the cache, the token file). It does not set the constant of HF_ENDPOINT: code under
    test must pass the endpoint.
    """
    # before the variables are set: the client must not keep the address of an earlier server
    from huggingface_hub import close_session, constants

    home = tmp_path / "hf_home"
    with LocalHub(home) as server:
        for name in _OUTSIDE:
            monkeypatch.delenv(name, raising=False)
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(constants, "HF_HOME", str(home))
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
        monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(home / "stored_tokens"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        close_session()
        yield server
        close_session()
    assert not server.errors, server.errors


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a small valid model."""
    return make_files(tmp_path_factory.mktemp("lone") / "model")


@pytest.fixture(scope="module")
def config(files: dict[str, bytes]) -> dict[str, Any]:
    """Its config.json."""
    loaded: dict[str, Any] = json.loads(files["config.json"])
    return loaded


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty current folder, in which a test may check for left-over files."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The old version of a model."""
    return write(old(), tmp_path / "old")


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    """The new version of the model."""
    return write(new(), tmp_path / "new")


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Replaces ``time.sleep``; returns the requested times."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept


@pytest.fixture
def hub_with_model(hub: LocalHub, model: Path) -> LocalHub:
    """A hub with the old version of the model."""
    publish_hub(model, REPO)
    hub.clear()
    return hub
