"""The helper that builds, kills, resumes and reloads a cascade."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from plugin_sites import install, wave

from cascadezoo.plugins.manager import get_host
from cascadezoo.testing import assert_survives_kill


def spec(steps: int) -> dict[str, Any]:
    return {
        "name": "tiny",
        "data": {"source": "shapes", "config": {"size": 8, "count": 64}},
        "stages": [
            {"name": "coarse", "kind": "flow.v1", "config": {"channels": 8, "multipliers": [1]}},
            {"name": "fix", "kind": "wave.v1"},
        ],
        "training": {
            "losses": [],
            "batch_size": 8,
            "phases": [{"name": "fix", "train": ["fix"], "steps": steps}],
        },
        "evaluation": {"metrics": [], "extractor": "small"},
    }


@pytest.mark.slow
def test_a_build_survives_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm_python: str
) -> None:
    monkeypatch.setattr(sys, "executable", warm_python)
    site = install(tmp_path / "site", "cascadezoo-wave", "1", wave())
    monkeypatch.syspath_prepend(str(site))
    get_host.cache_clear()
    try:
        model = assert_survives_kill(spec(600), tmp_path / "good")
        assert model == tmp_path / "good" / "killed" / "model"
        with pytest.raises(AssertionError, match="exit code"):
            assert_survives_kill({**spec(600), "stages": []}, tmp_path / "bad")
    finally:
        get_host.cache_clear()
