"""``plugins check``: settings in pyproject.toml, imports that --skip cannot hide, patches."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from errors_help import raises
from plugin_sites import cascadezoo, install, wave

from cascadezoo.errors import InputError
from cascadezoo.spec.configs import ImageShape
from cascadezoo.testing.settings import find_settings
from cascadezoo.testing.stage_checks import NAMES

PROJECT = """
[project]
name = "Cascadezoo_Wave"

[tool.cascadezoo.check."wave.v1"]
config = {strength = 0.25}
output = {channels = 1, size = 16}
neighbour = {kind = "vit.v1", config = {features = 16, heads = 2}}
num_classes = 3
skip = ["compile", "docs"]
"""


def test_settings_of_the_project_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_settings("cascadezoo-wave") == {}
    Path("pyproject.toml").write_text(PROJECT)
    assert find_settings("another") == {}
    (row,) = find_settings("cascadezoo-wave").values()
    assert row.config == {"strength": 0.25}
    assert row.skip == ["compile", "docs"]
    assert row.place() == {
        "output": ImageShape(1, 16),
        "neighbour": {"kind": "vit.v1", "config": {"features": 16, "heads": 2}},
        "num_classes": 3,
    }


def test_settings_of_an_editable_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "my project"
    project.mkdir()
    (project / "pyproject.toml").write_text(PROJECT)
    site = install(tmp_path / "site", "cascadezoo-wave", "1", wave())
    (info,) = site.glob("*.dist-info")
    data = {"url": project.as_uri(), "dir_info": {"editable": True}}
    (info / "direct_url.json").write_text(json.dumps(data))
    monkeypatch.syspath_prepend(str(site))
    assert set(find_settings("cascadezoo-wave")) == {"wave.v1"}
    (project / "pyproject.toml").write_text("[project")
    with raises(InputError, "input-check-settings", path=project / "pyproject.toml"):
        find_settings("cascadezoo-wave")


@pytest.mark.parametrize(
    "text", ["[project", "project = 3", 'tool = 3\n[project]\nname = "cascadezoo-wave"']
)
def test_a_strange_file_in_the_current_folder_has_no_settings(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pyproject.toml").write_text(text)
    assert find_settings("cascadezoo-wave") == {}


@pytest.mark.parametrize(
    ("old", "new", "shown"),
    [
        ("num_classes = 3", "num_classes = 0", "check.wave.v1.num_classes"),
        ("size = 16", 'size = "x"', "check.wave.v1.output.size"),
        ("skip = [", "skips = [", "check.wave.v1.skips"),
        ('cascadezoo.check."wave.v1"', "cascadezoo.checks.x", "'checks' is unknown"),
    ],
)
def test_invalid_settings(
    old: str, new: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pyproject.toml").write_text(PROJECT.replace(old, new))
    with raises(InputError, "input-check-settings", path="pyproject.toml") as caught:
        find_settings("cascadezoo-wave")
    assert shown in caught.value.what


@pytest.mark.slow
def test_skip_does_not_hide_a_broken_import_or_a_patch(tmp_path: Path) -> None:
    skip = [part for name in NAMES for part in ("--skip", name)]

    def failures(**changes: str) -> dict[str, str]:
        site = install(tmp_path / "site", "cascadezoo-wave", "1", {**wave(), **changes})
        done = cascadezoo("plugins", "check", "wave", "--json", *skip, site=site)
        rows = [row for report in json.loads(done.stdout) for row in report["checks"]]
        failed = {row["check"]: row["message"] for row in rows if row["state"] == "failed"}
        assert done.returncode == bool(failed), done.stderr
        return failed

    assert failures() == {}
    broken = failures(**{"stage.py": "import no_such_module\n"})
    assert set(broken) == {"imports"}
    assert "no_such_module" in broken["imports"]
    patch = wave()["stage.py"] + (
        "\n\ndef sample(self, *args, **options):\n    return None\n\n"
        "from cascadezoo import Cascade\nCascade.sample = sample\n"
    )
    patched = failures(**{"stage.py": patch})
    assert set(patched) == {"changes-nothing"}
    assert "cascadezoo.cascade.cascade.Cascade.sample" in patched["changes-nothing"]
