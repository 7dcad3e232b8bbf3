"""The helper that builds, kills, resumes and reloads a cascade."""

from __future__ import annotations

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
def test_a_build_survives_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = wave()
    site = install(tmp_path / "site", "cascadezoo-wave", "1", files)
    monkeypatch.syspath_prepend(str(site))
    get_host.cache_clear()
    try:
        model = assert_survives_kill(spec(600), tmp_path / "good")
        assert model == tmp_path / "good" / "killed" / "model"
        # A Python counter is lost by the kill.
        files["stage.py"] = files["stage.py"].replace(
            "        estimate = inputs.upstream + self.shift\n",
            "        self.n = getattr(self, 'n', 0) + 1\n"
            "        estimate = inputs.upstream + self.shift * (1 + self.n / 10)\n",
        )
        install(site, "cascadezoo-wave", "2", files)
        with pytest.raises(AssertionError, match="differs after a kill"):
            assert_survives_kill(spec(600), tmp_path / "bad")
    finally:
        get_host.cache_clear()
