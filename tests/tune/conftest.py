from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tune_cases import CDM, untrained

from cascadezoo import Cascade
from cascadezoo.cards.render_card import render_card
from cascadezoo.model_folder.figures import Figure
from cascadezoo.model_folder.integrity import seal
from cascadezoo.util.files import write_atomically


@pytest.fixture(scope="session")
def cdm() -> Cascade:
    return untrained(CDM)


@pytest.fixture(scope="session")
def published(cdm: Cascade, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with card and figures, like that of a build."""
    folder = cdm.save_pretrained(tmp_path_factory.mktemp("cdm") / "model")
    figure = Figure(name="kid.small.n20", metric="kid", value=0.5, std=0.1, n=20, extractor="small")
    metrics: dict[str, Any] = {
        "format": 1,
        "name": "cdm",
        "spec_digest": cdm.spec.digest(),
        "figures": [figure.to_dict()],
        "stages": [
            {"name": s.name, "kind": s.kind, "output": str(s.output), "parameters": 1}
            for s in cdm.resolved.stages
        ],
        "training": {
            "seconds_per_epoch": {},
            "seconds": 1.0,
            "device": "cpu",
            "precision": "fp32",
        },
        "environment": {"cascadezoo": "0", "torch": "0"},
    }
    write_atomically(folder / "metrics.json", json.dumps(metrics).encode())
    card = render_card(cdm.spec, metrics, cdm.resolved.data_info)
    write_atomically(folder / "README.md", card.encode())
    (folder / "samples.png").write_bytes(b"old")
    seal(folder, cdm.spec, "0")
    return folder


@pytest.fixture
def model(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the model in the test's working directory."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(published, tmp_path / "model"))
