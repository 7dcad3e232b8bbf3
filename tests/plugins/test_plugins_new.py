"""``plugins new`` and ``plugins check``: the written project works unchanged, for every kind."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from errors_help import raises
from hypothesis import given, settings
from hypothesis import strategies as st
from plugin_sites import cascadezoo, environment, install, lay_out, wave

from cascadezoo.cli.main import main
from cascadezoo.cli.plugins import KINDS as OFFERED
from cascadezoo.errors import InputError
from cascadezoo.testing.template import KINDS, project_name, write_project


def invoke(*args: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in args], prog_name="cascadezoo")


def run_tests(project: Path, *more: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", *more],
        cwd=project,
        env=environment() | env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


FEW = ("dataset", "metric")
"""The kinds of every test run; the others take longer."""
CHECKED = (*FEW, "upsampler")
"""The kinds for which `plugins check` repeats the checks of the project's own tests."""


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[] if k in FEW else [pytest.mark.slow]) for k in KINDS]
)
def test_every_kind_passes_its_own_tests_and_the_checks(kind: str, tmp_path: Path) -> None:
    project = tmp_path / "project"
    result = invoke("plugins", "new", "tidal-wave", "--kind", kind, "-o", project)
    assert result.exit_code == 0, result.output
    assert f" {kind} " in result.stdout
    assert "cascadezoo plugins check cascadezoo-tidal-wave" in result.stdout
    tests = run_tests(project)
    assert tests.returncode == 0, tests.stdout
    assert "2 passed" in tests.stdout
    site = tmp_path / "site"
    lay_out(project, site)
    listed = json.loads(cascadezoo("plugins", "list", "--json", site=site).stdout)
    assert [(row["state"], row["problems"]) for row in listed] == [("loaded", [])]
    if kind not in CHECKED:
        return
    checked = cascadezoo("plugins", "check", "tidal-wave", "--json", site=site)
    assert checked.returncode == 0, checked.stdout
    rows = json.loads(checked.stdout)
    assert rows[0]["subject"] == "plugin cascadezoo-tidal-wave:tidal-wave 0.1.0"
    states = [check["state"] for row in rows for check in row["checks"]]
    assert set(states) == {"ok"}
    assert len(states) == {"dataset": 9, "metric": 8}.get(kind, 22)


def test_the_project_passes_ruff(tmp_path: Path) -> None:
    for kind in KINDS:
        project = write_project("wave", kind, tmp_path / kind)
        for tool in (["check", "--select", "E,F,I,UP,B,SIM,D1"], ["format", "--check"]):
            done = subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "ruff",
                    *tool,
                    "--isolated",
                    "--no-cache",
                    "--line-length",
                    "100",
                    ".",
                ]
                + (["--per-file-ignores", "tests/*:D,*.py:D107"] if tool[0] == "check" else []),
                cwd=project,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{kind}\n{done.stdout}"
        texts = [p.read_text() for p in project.rglob("*") if p.is_file()]
        assert not [text for text in texts if re.search(r"\$[a-zA-Z{]", text)]
        readme = (project / "README.md").read_text()
        for block in re.findall(r"```json\n(.*?)```", readme, re.S):
            json.loads(block)


def test_the_specs_of_the_readmes_resolve(tmp_path: Path) -> None:
    site = tmp_path / "site"
    for kind in KINDS:
        project = write_project(f"my-{kind}", kind, tmp_path / kind)
        lay_out(project, site)
    for kind in KINDS:
        (block,) = re.findall(
            r"```json\n(.*?)```", (tmp_path / kind / "README.md").read_text(), re.S
        )
        data = json.loads(block)
        if kind == "metric":
            data |= {
                "name": "m",
                "data": {"source": "shapes", "config": {"size": 16}},
                "stages": [{"name": "coarse", "kind": "flow.v1"}],
            }
        path = tmp_path / f"{kind}.json"
        path.write_text(json.dumps(data))
        done = cascadezoo("validate", path, site=site)
        assert done.returncode == 0, f"{kind}: {done.stderr}"


def test_help_offers_all_kinds() -> None:
    assert tuple(KINDS) == OFFERED


def test_the_default_folder_and_json(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = json.loads(invoke("plugins", "new", "cascadezoo-wave", "--json").stdout)
    assert result["distribution"] == "cascadezoo-wave"
    assert result["kind"] == "generator"
    assert result["folder"] == "cascadezoo-wave"
    assert result["files"] == [
        ".gitignore",
        "README.md",
        "cascadezoo_wave/__init__.py",
        "cascadezoo_wave/config.py",
        "cascadezoo_wave/py.typed",
        "cascadezoo_wave/stage.py",
        "pyproject.toml",
        "tests/test_cascadezoo_wave.py",
    ]
    assert all((tmp_path / "cascadezoo-wave" / name).is_file() for name in result["files"])


def test_existing_files_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    result = invoke("plugins", "new", "wave", "-o", tmp_path / "mine", "--json")
    assert result.exit_code == 2
    assert json.loads(result.stderr)["error"]["code"] == "input-output-exists"
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    result = invoke("plugins", "new", "wave", "-o", tmp_path / "mine" / "notes.txt")
    assert result.exit_code == 2
    (tmp_path / "empty").mkdir()
    assert invoke("plugins", "new", "wave", "-o", tmp_path / "empty").exit_code == 0


@pytest.mark.parametrize(
    "name", ["", "-", "9waves", "Wave!", "cascadezoo", "a/b", "wäve", "x" * 41, "cascadezoo-"]
)
def test_invalid_names(name: str, tmp_path: Path) -> None:
    with raises(InputError, "input-plugin-name"):
        write_project(name, "refiner", tmp_path / "p")
    assert not (tmp_path / "p").exists()


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=12))
def test_a_name_is_refused_or_becomes_valid_for_pip_and_python(name: str) -> None:
    try:
        distribution = project_name(name)
    except InputError:
        return
    assert re.fullmatch(r"cascadezoo(-[a-z0-9]+)+", distribution)
    assert distribution.replace("-", "_").isidentifier()
    assert project_name(distribution) == distribution


# --- check


@pytest.mark.slow
def test_check_of_a_faulty_plugin(tmp_path: Path) -> None:
    files = wave()
    files["config.py"] = "import torch\n" + files["config.py"]
    files["stage.py"] = files["stage.py"].replace(".clamp(-1, 1)", "* 5")
    site = install(tmp_path / "site", "cascadezoo-wave", "1.0", files)
    skip = ["--skip", "compile", "--skip", "joint-training"]
    result = cascadezoo("plugins", "check", *skip, site=site)
    assert result.returncode == 1
    assert "cascadezoo_wave/config.py:1]" in result.stdout
    assert "sample() exceeds [-1, 1]" in result.stdout
    assert "skipped compile" in result.stdout
    assert re.search(r"22 checks, [34] failed", result.stdout)
    # Other settings.
    line = ["--set", "wave.v1:strength=0.001", *skip, "--json"]
    rows = json.loads(cascadezoo("plugins", "check", "cascadezoo-wave", *line, site=site).stdout)
    assert [row["ok"] for row in rows] == [True, False, True]


@pytest.mark.slow
def test_check_of_unknown_names(tmp_path: Path) -> None:
    site = install(tmp_path / "site", "cascadezoo-wave", "1.0", wave())
    for args, code, shown in (
        (["wabe"], "lookup-plugin", "cascadezoo, cascadezoo-wave"),
        (["wave", "--skip", "nonsense"], "usage", "'nonsense'"),
        (["wave", "--set", "wave.v2:x=1"], "input-setting-form", "wave.v1"),
    ):
        result = cascadezoo("plugins", "check", *args, "--json", site=site)
        assert result.returncode == 2
        assert json.loads(result.stderr)["error"]["code"] == code
        assert shown in result.stderr
    result = cascadezoo("plugins", "check", site=site, CASCADEZOO_LOAD_PLUGINS="")
    assert result.returncode == 0
    assert "skipped loads:" in result.stdout


@pytest.mark.slow
def test_check_of_a_plugin_that_cannot_be_loaded(tmp_path: Path) -> None:
    site = install(tmp_path / "site", "cascadezoo-wave", "1.0", {"__init__.py": "import nope"})
    result = cascadezoo("plugins", "check", site=site)
    assert result.returncode == 1
    assert re.search("failed  loads: .*ModuleNotFoundError", result.stdout)
    assert "__init__.py:1" in result.stdout


@pytest.mark.slow
def test_pip_installs_the_project(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="hatchling is not installed")
    project = write_project("wave", "upsampler", tmp_path / "wave")
    site = tmp_path / "site"
    line = ["--no-deps", "--no-build-isolation", "--disable-pip-version-check", "-q"]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *line, "--target", str(site), str(project)],
        check=True,
    )
    assert "wave.v1" in cascadezoo("stages", "list", site=site).stdout
    result = cascadezoo("plugins", "check", "cascadezoo-wave", site=site, cwd=tmp_path)
    assert result.returncode == 0, result.stdout
    # The tests run on the installed package, not on the project folder.
    (project / "cascadezoo_wave").rename(tmp_path / "elsewhere")
    tests = run_tests(project, PYTHONPATH=str(site))
    assert tests.returncode == 0, tests.stdout
