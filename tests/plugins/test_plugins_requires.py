"""Specs and models that ask for a plugin which is missing, too old, too new, or has changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from plugin_sites import CONFIG, HOOK, STAGE, cascadezoo, install, wave

import cascadezoo as package


def spec(requires: list[str], **config: Any) -> dict[str, Any]:
    return {
        "name": "asks",
        "data": {"source": "shapes", "config": {"size": 16, "count": 64, "test_count": 16}},
        "stages": [
            {"name": "coarse", "kind": "flow.v1", "config": {"channels": 8, "steps": 2}},
            {"name": "refine", "kind": "wave.v1", "config": config},
        ],
        "training": {"losses": [], "phases": [{"name": "p", "train": ["refine"], "steps": 1}]},
        "evaluation": {"metrics": [], "extractor": "small"},
        "requires": requires,
    }


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return install(tmp_path / "site", "cascadezoo-wave", "1.5", wave())


def problems(tmp_path: Path, data: dict[str, Any], site: Path | None) -> dict[str, dict[str, str]]:
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(data))
    done = cascadezoo("validate", path, "--json", site=site)
    assert done.returncode == 2, done.stdout
    error = json.loads(done.stderr.splitlines()[-1])["error"]
    return {row["path"]: row for row in error["problems"]}


def test_what_is_installed_and_right_is_used(tmp_path: Path, site: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(spec(["cascadezoo-wave>=1.2", "cascadezoo-wave<2"], strength=0.1)))
    done = cascadezoo("validate", path, site=site)
    assert done.returncode == 0, done.stderr


def test_missing(tmp_path: Path) -> None:
    found = problems(tmp_path, spec(["cascadezoo-wave>=1.2"]), None)
    line = "pip install 'cascadezoo-wave>=1.2'"
    assert "there is no stage kind 'wave.v1'" in found["stages.1.kind"]["message"]
    assert line in found["stages.1.kind"]["hint"]
    assert found["requires.0"]["message"] == "cascadezoo-wave is not installed"
    assert found["requires.0"]["hint"] == line


def test_missing_and_nothing_is_required(tmp_path: Path) -> None:
    found = problems(tmp_path, spec([]), None)
    assert "pip install DISTRIBUTION" in found["stages.1.kind"]["hint"]


def test_too_old(tmp_path: Path, site: Path) -> None:
    data = spec(["cascadezoo-wave>=2.0"])
    data["stages"][1]["kind"] = "wave.v2"
    found = problems(tmp_path, data, site)
    line = "pip install --upgrade 'cascadezoo-wave>=2.0'"
    for value in ("cascadezoo-wave>=2.0", "cascadezoo-wave 1.5"):
        assert value in found["requires.0"]["message"]
    assert found["requires.0"]["hint"] == line
    assert "there is no stage kind 'wave.v2'" in found["stages.1.kind"]["message"]
    assert line in found["stages.1.kind"]["hint"]


def test_too_new(tmp_path: Path, site: Path) -> None:
    found = problems(tmp_path, spec(["cascadezoo-wave>=1.0,<1.5"]), site)
    assert found["requires.0"]["hint"] == "pip install --upgrade 'cascadezoo-wave>=1.0,<1.5'"


@pytest.mark.parametrize(
    ("config", "path", "message"),
    [
        ({"width": 3}, "stages.1.config.width", "unknown key"),
        ({"strength": "strong"}, "stages.1.config.strength", "input should be a valid number"),
    ],
)
def test_a_config_that_has_changed_since(
    tmp_path: Path, site: Path, config: dict[str, Any], path: str, message: str
) -> None:
    found = problems(tmp_path, spec(["cascadezoo-wave>=1.2"], **config), site)
    assert message in found[path]["message"]
    for value in ("wave.v1", "1.5", "pip install 'cascadezoo-wave==1.2'"):
        assert value in found[path]["hint"]
    # Written with this very version, it is the spec that is at fault.
    same = problems(tmp_path, spec(["cascadezoo-wave>=1.5"], **config), site)
    assert same[path]["hint"] is None


def test_a_place_that_a_changed_config_refuses(tmp_path: Path) -> None:
    files = wave()
    files["config.py"] = CONFIG.replace("import RefinerConfig", "import ConfigError, RefinerConfig")
    files["config.py"] += (
        "\n    def fit(self, output):\n        raise ConfigError('strength', 'is too much')\n"
    )
    site = install(tmp_path / "site", "cascadezoo-wave", "3.0", files)
    found = problems(tmp_path, spec(["cascadezoo-wave>=1.2"]), site)
    assert "pip install 'cascadezoo-wave==1.2'" in found["stages.1.config.strength"]["hint"]


def test_a_published_model(tmp_path: Path, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Built with 1.5; then the plugin changes, is broken, is for another API, and goes."""
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(spec([], strength=0.25)))
    done = cascadezoo("build", path, "-o", tmp_path / "run", "--quiet", site=site)
    assert done.returncode == 0, done.stderr
    model = tmp_path / "run" / "model"
    stated = json.loads((model / "config.json").read_text())["spec"]["requires"]
    assert "cascadezoo-wave>=1.5" in stated

    def sample() -> str:
        done = cascadezoo("sample", model, "-n", 1, "-o", tmp_path / "grid.png", site=site)
        assert done.returncode in (1, 2), done.stdout
        assert "Traceback" not in done.stderr
        return done.stderr

    renamed = wave()
    renamed["config.py"] = CONFIG.replace("strength", "power")
    renamed["stage.py"] = STAGE.replace("config.strength", "config.power")
    install(site, "cascadezoo-wave", "2.0", renamed)
    assert "pip install 'cascadezoo-wave==1.5'" in sample()

    inside = wave() | {"stage.py": STAGE.replace("self.shift", "self.offset")}
    install(site, "cascadezoo-wave", "2.1", inside)
    result = sample()
    assert "shift is not part of the stage" in result
    assert "pip install 'cascadezoo-wave==1.5'" in result

    install(site, "cascadezoo-wave", "1.0", wave())
    assert "pip install --upgrade 'cascadezoo-wave>=1.5'" in sample()

    install(site, "cascadezoo-wave", "1.6", {"__init__.py": "import no_such_module"})
    result = sample()
    assert "cascadezoo-wave cannot be loaded (cascadezoo plugins list)" in result

    text = HOOK.format(kind="wave.v1", package="cascadezoo_wave")
    install(site, "cascadezoo-wave", "1.7", {"__init__.py": f"CASCADEZOO_API = 2\n{text}"})
    result = sample()
    assert "is for plugin API level 2: pip install --upgrade cascadezoo" in result

    install(site, "cascadezoo-wave", "1.8", wave("other.v1"))
    assert "there is no stage kind 'wave.v1'" in sample()

    done = cascadezoo("sample", model, "-o", tmp_path / "grid.png")
    assert "pip install 'cascadezoo-wave>=1.5'" in done.stderr
    assert package.__version__ in (model / "config.json").read_text()
