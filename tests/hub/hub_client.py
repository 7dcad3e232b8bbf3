"""Helpers for tests of the local Hub, with and without the client."""

from __future__ import annotations

import http.client
import os
import subprocess
from email.message import Message
from pathlib import Path
from typing import Any, NamedTuple

from hub_server import LocalHub
from huggingface_hub import CommitOperationAdd, hf_hub_download

ID = "org/name"
CARD = b"""---
license: mit
library_name: cascadezoo
pipeline_tag: unconditional-image-generation
tags: [digits]
model-index:
- name: digits
  results:
  - task: {type: unconditional-image-generation}
    dataset: {type: mnist, name: MNIST}
    metrics: [{type: kid, value: 1.5}]
---
# Digits
"""
WEIGHTS = bytes(range(256)) * 800
FILES = {"config.json": b'{"a": 1}\n', "README.md": CARD, "stages/base.safetensors": WEIGHTS}


def added(files: dict[str, bytes]) -> list[CommitOperationAdd]:
    return [CommitOperationAdd(path, content) for path, content in files.items()]


def download(hub: LocalHub, path: str, **options: Any) -> bytes:
    options = {"token": hub.token, **options}
    return Path(hf_hub_download(ID, path, endpoint=hub.url, **options)).read_bytes()


class RawResponse(NamedTuple):
    """A response without the client."""

    status: int
    headers: Message
    content: bytes


def raw(hub: LocalHub, method: str, path: str, **headers: str) -> RawResponse:
    """A request without the client."""
    connection = http.client.HTTPConnection(hub.url.removeprefix("http://"), timeout=10)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return RawResponse(response.status, response.headers, response.read())
    finally:
        connection.close()


def run(hub: LocalHub, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **hub.env, **env}
    return subprocess.run(
        argv, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
