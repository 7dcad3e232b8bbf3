"""Weights that claim more than they hold are refused before they are read."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from errors_help import raises
from lone_spec import lone_spec

from cascadezoo import Cascade
from cascadezoo.errors import ModelError

WEIGHTS = "stages/coarse/model.safetensors"


@pytest.mark.parametrize("size", [200 << 20, 1 << 35, 1 << 39])
@pytest.mark.parametrize("header", ["whole", "damaged", "endless"])
def test_long_weights_are_not_read(tmp_path: Path, size: int, header: str) -> None:
    model = Cascade.from_spec(lone_spec()).save_pretrained(tmp_path / "model")
    path = model / WEIGHTS
    with path.open("r+b") as file:
        if header == "damaged":
            file.seek(20)
            file.write(b"?")
        elif header == "endless":
            file.write((1 << 34).to_bytes(8, "little"))
    os.truncate(path, size)
    config = json.loads((model / "config.json").read_text())
    config["files"][WEIGHTS]["size"] = size
    (model / "config.json").write_text(json.dumps(config))
    began = time.monotonic()
    with raises(ModelError, "model-damaged", faults={WEIGHTS: "length"}):
        Cascade.from_pretrained(model)
    assert time.monotonic() - began < 5
