"""Rules for every project in plugins/: form, use of the public API, declared imports."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions, requires
from pathlib import Path
from typing import Any

import pytest

import cascadezoo
from cascadezoo.plugins.manager import canonical_name

ROOT = Path(__file__).parents[2]
PROJECTS = [path.parent for path in sorted((ROOT / "plugins").glob("*/pyproject.toml"))]
# The modules that docs/api.md documents besides the names of `cascadezoo`.
PUBLIC_MODULES = {"cascadezoo", "cascadezoo.errors", "cascadezoo.testing"}
PUBLIC_NAMES = {*cascadezoo.__all__, "__all__", "errors", "testing"}

every = pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.name)


def table(project: Path) -> dict[str, Any]:
    return tomllib.loads((project / "pyproject.toml").read_text())["project"]


def sources(project: Path, *, tests: bool) -> list[Path]:
    files = [p for p in project.rglob("*.py") if "__pycache__" not in p.parts]
    return [p for p in files if tests or "tests" not in p.relative_to(project).parts]


def imports(path: Path) -> Iterator[tuple[str, str | None, int]]:
    """Module, imported name and line of each import of a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", alias.name, node.lineno) for alias in node.names)


def private_uses(path: Path) -> list[str]:
    """The imports of a file from cascadezoo that are not public."""
    private = []
    for module, name, line in imports(path):
        if module.partition(".")[0] != "cascadezoo":
            continue
        known = module in PUBLIC_MODULES or f"{module}.{name}" in PUBLIC_MODULES
        listed = module != "cascadezoo" or name is None or name in PUBLIC_NAMES
        if not known or not listed:
            private.append(f"{path.name}:{line}: {module} {name or ''}".rstrip())
    for node in ast.walk(ast.parse(path.read_text())):
        if not (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)):
            continue
        if node.value.id == "cascadezoo" and node.attr not in PUBLIC_NAMES:
            private.append(f"{path.name}:{node.lineno}: cascadezoo.{node.attr}")
    return private


def test_private_uses_are_found(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text(
        "import cascadezoo, torch\nimport cascadezoo.testing\n"
        "from cascadezoo import Stage, testing\nfrom cascadezoo.testing import anything\n"
        "cascadezoo.Stage\n"
        "from cascadezoo.stages.base import Stage\nimport cascadezoo.nn.unet\n"
        "from cascadezoo import nn\ncascadezoo.registry\n"
    )
    assert private_uses(path) == [
        "x.py:6: cascadezoo.stages.base Stage",
        "x.py:7: cascadezoo.nn.unet",
        "x.py:8: cascadezoo nn",
        "x.py:9: cascadezoo.registry",
    ]


def test_the_plugins_exist() -> None:
    names = {project.name for project in PROJECTS}
    assert {"cascadezoo-hello", "cascadezoo-diffusers", "cascadezoo-gan"} <= names


@every
def test_form(project: Path) -> None:
    about = table(project)
    assert about["name"] == project.name
    assert about["description"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", about["version"])
    points = about["entry-points"]["cascadezoo"]
    assert len(points) == 1
    assert (project / "README.md").read_text().startswith(f"# {project.name}\n")
    assert list((project / "tests").glob("test_*.py"))


@every
def test_only_the_public_api_is_imported(project: Path) -> None:
    assert not [use for path in sources(project, tests=True) for use in private_uses(path)]


@every
def test_imports_are_declared(project: Path) -> None:
    """As dependencies of the project or of cascadezoo; others may be missing elsewhere."""
    own = {_name(text) for text in table(project)["dependencies"]}
    assert "cascadezoo" in own
    core = {_name(text) for text in requires("cascadezoo") or () if "extra ==" not in text}
    # An editable installation lists no files, so its packages have no distribution.
    homes = {"cascadezoo": ["cascadezoo"], **packages_distributions()}
    mine = {p.name for p in (*project.iterdir(), *(project / "src").glob("*")) if p.is_dir()}
    for path in sources(project, tests=False):
        for module, _, line in imports(path):
            top = module.partition(".")[0]
            if top in mine or top in sys.stdlib_module_names:
                continue
            homes_of = {canonical_name(name) for name in homes.get(top, ())}
            assert homes_of & (own | core), f"{path.name}:{line}: {top} is not declared"


@every
def test_cascadezoo_has_a_lower_bound_and_no_pin(project: Path) -> None:
    (text,) = (t for t in table(project)["dependencies"] if _name(t) == "cascadezoo")
    assert ">=" in text
    assert "==" not in text


def _name(requirement: str) -> str:
    return canonical_name(re.match(r"[\w.-]+", requirement)[0])
