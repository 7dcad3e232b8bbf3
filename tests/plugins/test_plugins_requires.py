"""Specs and models that require a plugin that is missing, too old, too new or changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from plugin_sites import CONFIG, HOOK, STAGE, cascadezoo, install, wave

import cascadezoo as package


def spec(requires: list[str], **config: Any) -> dict[str, Any]:
    return {
        "name": "needs-wave",
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


def test_a_matching_plugin_is_used(tmp_path: Path, site: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(spec(["cascadezoo-wave>=1.2", "cascadezoo-wave<2"], strength=0.1)))
    done = cascadezoo("validate", path, site=site)
    assert done.returncode == 0, done.stderr


def test_missing(tmp_path: Path) -> None:
    rows = problems(tmp_path, spec(["cascadezoo-wave>=1.2"]), None)
    line = "pip install 'cascadezoo-wave>=1.2'"
    assert rows["stages.1.kind"]["code"] == "lookup"
    assert line in rows["stages.1.kind"]["hint"]
    assert rows["requires.0"]["code"] == "not-installed"
    assert "cascadezoo-wave" in rows["requires.0"]["message"]
    # Nobody vouches for the name.
    hint = rows["requires.0"]["hint"]
    assert hint.startswith("the name cascadezoo-wave comes from the author")
    assert hint.endswith(line)


def test_missing_with_an_address(tmp_path: Path) -> None:
    url = "https://example.org/wave"
    data = spec(["cascadezoo-wave>=1.2"]) | {"project_urls": {"cascadezoo-wave": url}}
    rows = problems(tmp_path, data, None)
    for path in ("stages.1.kind", "requires.0"):
        assert "pip install 'cascadezoo-wave>=1.2'" in rows[path]["hint"]
        assert url in rows[path]["hint"]


def test_missing_and_nothing_is_required(tmp_path: Path) -> None:
    rows = problems(tmp_path, spec([]), None)
    assert "pip install DISTRIBUTION" in rows["stages.1.kind"]["hint"]


def test_too_old(tmp_path: Path, site: Path) -> None:
    data = spec(["cascadezoo-wave>=2.0"])
    data["stages"][1]["kind"] = "wave.v2"
    rows = problems(tmp_path, data, site)
    line = "pip install --upgrade 'cascadezoo-wave>=2.0'"
    assert "cascadezoo-wave>=2.0" in rows["requires.0"]["message"]
    assert "cascadezoo-wave 1.5" in rows["requires.0"]["message"]
    assert rows["requires.0"]["hint"] == line
    assert rows["stages.1.kind"]["code"] == "lookup"
    assert line in rows["stages.1.kind"]["hint"]


def test_too_new(tmp_path: Path, site: Path) -> None:
    rows = problems(tmp_path, spec(["cascadezoo-wave>=1.0,<1.5"]), site)
    assert rows["requires.0"]["hint"] == "pip install --upgrade 'cascadezoo-wave>=1.0,<1.5'"


@pytest.mark.parametrize(
    ("config", "path", "code"),
    [
        ({"width": 3}, "stages.1.config.width", "extra-forbidden"),
        ({"strength": "strong"}, "stages.1.config.strength", "float-type"),
    ],
)
def test_a_config_that_changed_since_the_required_version(
    tmp_path: Path, site: Path, config: dict[str, Any], path: str, code: str
) -> None:
    rows = problems(tmp_path, spec(["cascadezoo-wave>=1.2"], **config), site)
    assert rows[path]["code"] == code
    for text in ("wave.v1", "cascadezoo-wave 1.2", "1.5", "pip install 'cascadezoo-wave==1.2'"):
        assert text in rows[path]["hint"]
    # With the required version installed, the spec itself is wrong.
    same = problems(tmp_path, spec(["cascadezoo-wave>=1.5"], **config), site)
    assert same[path]["hint"] is None


def test_a_changed_config_that_refuses_its_position(tmp_path: Path) -> None:
    files = wave()
    files["config.py"] = CONFIG.replace("import RefinerConfig", "import ConfigError, RefinerConfig")
    files["config.py"] += (
        "\n    def fit(self, output):\n        raise ConfigError('strength', 'is too much')\n"
    )
    site = install(tmp_path / "site", "cascadezoo-wave", "3.0", files)
    rows = problems(tmp_path, spec(["cascadezoo-wave>=1.2"]), site)
    assert "pip install 'cascadezoo-wave==1.2'" in rows["stages.1.config.strength"]["hint"]


@pytest.mark.slow
def test_a_published_model(tmp_path: Path, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of version 1.5; then the plugin changes, breaks, needs another API and is removed."""
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(spec([], strength=0.25)))
    done = cascadezoo("build", path, "-o", tmp_path / "run", "--quiet", site=site)
    assert done.returncode == 0, done.stderr
    model = tmp_path / "run" / "model"
    requires = json.loads((model / "config.json").read_text())["spec"]["requires"]
    assert "cascadezoo-wave>=1.5" in requires

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
    stderr = sample()
    assert "shift" in stderr
    assert "pip install 'cascadezoo-wave==1.5'" in stderr

    install(site, "cascadezoo-wave", "1.0", wave())
    assert "pip install --upgrade 'cascadezoo-wave>=1.5'" in sample()

    install(site, "cascadezoo-wave", "1.6", {"__init__.py": "import no_such_module"})
    stderr = sample()
    assert "cascadezoo-wave cannot be loaded" in stderr
    assert "cascadezoo plugins list" in stderr

    text = HOOK.format(kind="wave.v1", package="cascadezoo_wave")
    install(site, "cascadezoo-wave", "1.7", {"__init__.py": f"CASCADEZOO_API = 2\n{text}"})
    stderr = sample()
    assert "API level 2" in stderr
    assert "pip install --upgrade cascadezoo" in stderr

    install(site, "cascadezoo-wave", "1.8", wave("other.v1"))
    assert "'wave.v1'" in sample()

    done = cascadezoo("sample", model, "-o", tmp_path / "grid.png")
    assert "pip install 'cascadezoo-wave>=1.5'" in done.stderr
    assert package.__version__ in (model / "config.json").read_text()
