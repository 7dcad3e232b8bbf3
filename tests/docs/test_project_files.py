"""The files around the code: workflows, citation, links, releases, policies."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from release_dist import project_of

import cascadezoo
from cascadezoo.plugins.index import read_index

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def load(path: Path) -> dict[str, Any]:
    data = yaml.safe_load(path.read_text())
    assert isinstance(data, dict)
    return data


def steps(path: Path) -> Iterator[dict[str, Any]]:
    for job in load(path)["jobs"].values():
        assert job["timeout-minutes"] <= 360
        yield from job["steps"]


def test_workflows_call_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    called = set()
    for path in WORKFLOWS:
        for step in steps(path):
            if "run" not in step:
                assert re.fullmatch(r"[a-z-]+/[a-z-]+@\S+", step["uses"])
                continue
            match = re.match(r"make ([a-z-]+)( [A-Z_]+=\S.*)?$", step["run"])
            assert match is not None, step["run"]
            called.add(match[1])
    assert called <= targets
    assert called >= {"lint", "test", "test-slow", "docs", "wheels", "plugins", "release-dist"}


def test_workflows_have_few_rights_and_no_secrets() -> None:
    for path in WORKFLOWS:
        assert load(path)["permissions"] == {"contents": "read"}
        assert "secrets." not in path.read_text()
    publish = load(ROOT / ".github" / "workflows" / "release.yml")["jobs"]["publish"]
    # Trusted publishing: a short-lived token of this workflow, in an environment that people guard.
    assert publish["permissions"] == {"id-token": "write"}
    assert publish["environment"] == "release"
    assert publish["needs"] == "build"


def test_the_makefile_builds_the_package_and_every_plugin() -> None:
    done = subprocess.run(
        ["make", "-n", "wheels", f"PYTHON={sys.executable}"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "-m build --outdir dist ." in done.stdout
    assert "plugins/*/pyproject.toml" in done.stdout


@pytest.mark.parametrize(
    ("tag", "folder", "version"),
    [
        ("v0.2.0", ".", "0.2.0"),
        ("v1.0.0rc1", ".", "1.0.0rc1"),
        ("cascadezoo-gan-v0.2.0", "plugins/cascadezoo-gan", "0.2.0"),
    ],
)
def test_a_tag_names_a_project(tag: str, folder: str, version: str) -> None:
    assert project_of(tag) == ((ROOT / folder).resolve(), version)


@pytest.mark.parametrize(
    "tag", ["0.2.0", "v", "gan-v0.2.0", "cascadezoo-none-v1.0", "../v1", "v1 2"]
)
def test_other_tags_are_refused(tag: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(tag))):
        project_of(tag)


def test_the_citation_is_of_this_version() -> None:
    data = load(ROOT / "CITATION.cff")
    assert data["version"] == cascadezoo.__version__
    assert data["license"] == PROJECT["license"]
    assert data["cff-version"] == "1.2.0"


def test_the_project_has_links_and_its_files() -> None:
    links = PROJECT["urls"]
    assert set(links) >= {"Homepage", "Documentation", "Repository", "Issues", "Changelog"}
    assert all(link.startswith("https://") for link in links.values())
    for name in ("CONTRIBUTING.md", "CODE_OF_CONDUCT.md", "SECURITY.md", "CITATION.cff"):
        assert (ROOT / name).stat().st_size > 300
    for name in ("bug.yml", "feature.yml"):
        template = load(ROOT / ".github" / "ISSUE_TEMPLATE" / name)
        assert {"name", "description", "body"} <= set(template)


def test_links_in_the_policies_lead_somewhere() -> None:
    for name in ("CONTRIBUTING.md", "CODE_OF_CONDUCT.md", "README.md", "SECURITY.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / name).read_text()):
            assert target.startswith("https://") or (ROOT / target).exists(), (name, target)


def test_the_index_knows_the_kinds_of_the_plugins_in_the_repository() -> None:
    kinds = {}
    for path in ROOT.glob("plugins/*/**/__init__.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "StageEntry":
                (name,) = [k.value.value for k in node.keywords if k.arg == "name"]  # type: ignore[attr-defined]
                kinds[name] = path.relative_to(ROOT).parts[1]
    rows = ((p.name, p.registers.get("stage kind", ())) for p in read_index())
    assert {kind: name for name, stages in rows for kind in stages} == kinds
