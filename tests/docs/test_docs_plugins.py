"""The pages on plugins: their code is the code in plugins/, and their commands run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from plugin_pages import (
    INDEX,
    PAGES,
    PLUGINS,
    Project,
    emulated,
    projects,
    python,
    run_page,
    shell,
    updated,
    updated_index,
    write,
)
from test_docs import ROOT, blocks

HELLO = Project(PLUGINS / "cascadezoo-hello")
TUTORIAL = blocks(ROOT / "docs" / "first-plugin.md")


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return emulated(tmp_path / "env")


@pytest.mark.parametrize("page", PAGES)
def test_pages_are_up_to_date(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    assert text == updated(page), "run: python tests/docs/plugin_pages.py write"


def test_the_index_states_what_the_plugins_are() -> None:
    index = json.loads(INDEX.read_text())
    assert index == updated_index(), "run: python tests/docs/plugin_pages.py write"
    assert {row["name"] for row in index["plugins"]} >= {project.name for project in projects()}


def test_an_old_block_is_brought_up_to_date() -> None:
    # The test above can fail: a page whose block is not the file's is not what `updated` gives.
    (entry,) = (b for b in TUTORIAL if b.title and b.title.endswith("__init__.py"))
    assert entry.text == (HELLO.package / "__init__.py").read_text()
    assert entry.text in updated("first-plugin.md")


def test_the_tutorial_shows_the_whole_plugin() -> None:
    shown = {b.title for b in TUTORIAL if b.title}
    code = [HELLO.folder / "pyproject.toml", *HELLO.package.rglob("*.py")]
    assert len(code) == 3
    assert {str(p.relative_to(PLUGINS)) for p in code} <= shown
    # What the tutorial adds to it is a setting and a spec.
    added = {title for title in shown if not (PLUGINS / title).is_file()}
    assert added == {"hello.json", "cascadezoo-hello/cascadezoo_hello/config.py"}


def test_the_plugin_has_at_most_sixty_lines() -> None:
    code = [HELLO.folder / "pyproject.toml", *HELLO.package.rglob("*.py")]
    lines = sum(len(path.read_text().splitlines()) for path in code)
    assert lines <= 60
    for text in (ROOT / "docs" / "first-plugin.md", HELLO.folder / "README.md"):
        assert f"{lines} lines" in " ".join(text.read_text().split())


def test_every_plugin_is_in_the_list() -> None:
    page = (ROOT / "docs" / "plugin-list.md").read_text()
    readme = (PLUGINS / "README.md").read_text()
    assert len(projects()) >= 3
    for project in projects():
        assert f"### {project.name}\n" in page
        assert f"`{project.name}`" in readme


def test_pages_are_in_the_navigation() -> None:
    nav = (ROOT / "mkdocs.yml").read_text()
    for page in PAGES:
        assert f": {page}\n" in nav


def test_the_tutorials_plugin_is_found_and_needs_no_torch(
    tmp_path: Path, env: dict[str, str]
) -> None:
    write(TUTORIAL, tmp_path)
    shell("pip install ./cascadezoo-hello", tmp_path, env)
    (row,) = json.loads(shell("cascadezoo plugins list --json", tmp_path, env))
    assert row["distribution"] == "cascadezoo-hello"
    assert row["state"] == "loaded"
    assert row["problems"] == []
    code = (
        "import sys\nfrom cascadezoo import load_spec\n"
        "resolved = load_spec('hello.json')\n"
        "print(resolved.stages[1].output, resolved.spec.requires)\n"
        "assert 'torch' not in sys.modules\n"
    )
    said = python(code, tmp_path, env)
    assert said == "3x32x32 ['cascadezoo>=0.1.0', 'cascadezoo-hello>=0.1.0']\n"


def test_without_the_plugin_the_spec_tells_what_to_do(tmp_path: Path, env: dict[str, str]) -> None:
    write(TUTORIAL, tmp_path)
    said = shell("cascadezoo validate hello.json 2>&1 || test $? = 2", tmp_path, env)
    assert "stages.1.kind: " in said
    assert "'linear-sr.v1'" in said
    assert "pip install" in said


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if page != "plugin-list.md"])
def test_blocks_run(page: str, tmp_path: Path, env: dict[str, str]) -> None:
    folder = tmp_path / "page"
    folder.mkdir()
    run_page(page, folder, env)
