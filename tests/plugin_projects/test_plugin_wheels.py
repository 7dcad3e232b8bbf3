"""Each project in plugins/ as a wheel in a clean environment. `.ci/plugins` runs its tests there."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECTS = [path.parent for path in sorted((ROOT / "plugins").glob("*/pyproject.toml"))]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Builds the wheel of a project once per test session."""
    folder = tmp_path_factory.mktemp("wheels")

    @functools.cache
    def build(project: Path) -> Path:
        command = [*PIP, "wheel", "-q", "--no-deps", "-w", str(folder), str(project)]
        done = subprocess.run(command, capture_output=True, text=True)
        if "No matching distribution found for hatchling" in done.stderr:
            pytest.skip("needs a package index to build wheels")
        assert done.returncode == 0, done.stderr
        (path,) = folder.glob(f"{project.name.replace('-', '_')}-[0-9]*.whl")
        return path

    return build


def environment(folder: Path, wheels: list[Path]) -> Path:
    """Make a venv with these wheels and the packages of this one; return its python."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    command = [*PIP, "--python", str(python), "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*command, *map(str, wheels)], check=True)
    query = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = subprocess.run(query, check=True, capture_output=True, text=True).stdout.strip()
    shared = sysconfig.get_path("purelib")
    (Path(site) / "zz_shared.pth").write_text(f"import site; site.addsitedir({shared!r})\n")
    return python


def listed(python: Path, folder: Path) -> list[dict]:
    command = [python, "-m", "cascadezoo", "plugins", "list", "--json"]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.name)
def test_alone(project: Path, wheel: Callable[[Path], Path], tmp_path: Path) -> None:
    package = project.name.replace("-", "_")
    with zipfile.ZipFile(wheel(project)) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist()}
    assert {package} == {top for top in tops if not top.endswith(".dist-info")}
    python = environment(tmp_path / "env", [wheel(project)])
    (row,) = listed(python, tmp_path)
    assert row["distribution"] == project.name
    assert row["state"] == "loaded"
    assert row["problems"] == []


def test_all_together(wheel: Callable[[Path], Path], tmp_path: Path) -> None:
    python = environment(tmp_path / "env", [wheel(project) for project in PROJECTS])
    rows = listed(python, tmp_path)
    assert {row["distribution"] for row in rows} == {project.name for project in PROJECTS}
    assert {row["state"] for row in rows} == {"loaded"}
    names = [name for row in rows for kind in row["registers"].values() for name in kind]
    assert len(names) == len(set(names)) >= len(rows)
