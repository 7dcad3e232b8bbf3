"""The layout: documented packages, no import cycles, and layers that docs and linter share."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "cascadezoo"
FILES = {
    ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p
    for p in sorted(PACKAGE.rglob("*.py"))
}
TREES = {module: ast.parse(path.read_text()) for module, path in FILES.items()}

# The folders where contributors add things.
FOLDERS = [
    "cli",
    "data",
    "evaluate/features",
    "evaluate/metrics",
    "plugins",
    "spec/presets",
    "stages",
    "train",
    "zoo",
]


# Without model cards.
READMES = [p for p in sorted(PACKAGE.rglob("README.md")) if "models" not in p.parts]


def imported(node: ast.AST) -> Iterator[str]:
    """The modules that code imports, also inside functions, but not under TYPE_CHECKING."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield from imported(other)
            continue
        if isinstance(child, ast.ImportFrom) and child.module in FILES:
            for alias in child.names:
                full = f"{child.module}.{alias.name}"
                yield full if full in FILES else child.module
        elif isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names if alias.name in FILES)
        yield from imported(child)


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """The modules of an import cycle; empty without one."""
    done: set[str] = set()
    for start in graph:
        path: list[str] = []
        stack: list[tuple[str, Iterator[str]]] = []
        if start not in done:
            path, stack = [start], [(start, iter(sorted(graph[start])))]
        while stack:
            module, targets = stack[-1]
            target = next(targets, None)
            if target is None:
                done.add(module)
                stack.pop()
                path.pop()
            elif target in path:
                return [*path[path.index(target) :], target]
            elif target not in done:
                path.append(target)
                stack.append((target, iter(sorted(graph[target]))))
    return []


def test_cycles_are_detected() -> None:
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_import_cycles_not_even_deferred() -> None:
    graph = {module: set(imported(tree)) - {module} for module, tree in TREES.items()}
    assert sum(map(len, graph.values())) > 1000
    assert cycle(graph) == []


def test_no_two_classes_share_a_name() -> None:
    modules = defaultdict(set)
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                modules[node.name].add(module)
    assert {name: sorted(rows) for name, rows in modules.items() if len(rows) > 1} == {}


def test_each_package_documents_its_purpose() -> None:
    packages = {m: t for m, t in TREES.items() if FILES[m].name == "__init__.py"}
    for module, tree in packages.items():
        text = ast.get_docstring(tree)
        assert text, module
        # A stage kind has one line; other packages have two or three sentences.
        if not module.startswith("cascadezoo.stages."):
            assert len(re.findall(r"\.(?=\s|$)", text)) >= 2, module


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_readme_where_contributors_add_things(folder: str) -> None:
    text = (PACKAGE / folder / "README.md").read_text()
    lines = [line for line in text.splitlines() if line.strip()]
    assert 5 <= len(lines) <= 30
    assert len(named(text)) >= 3


@pytest.mark.parametrize("readme", READMES, ids=lambda p: str(p.parent.name))
def test_readmes_name_files_that_exist(readme: Path) -> None:
    for name in named(readme.read_text()):
        paths = [folder / name for folder in (readme.parent, ROOT, PACKAGE)]
        exists = any(path.exists() for path in paths) or [*readme.parent.rglob(f"*/{name}")]
        assert exists, f"{readme}: {name}"


def named(text: str) -> list[str]:
    """The files and folders that a README names, without those that the reader creates."""
    names = re.findall(r"`([\w./-]+(?:\.py|\.md|\.json|\.css|\.js|/))`", text)
    created = re.compile(r"mine|NAME|name>")
    return [name for name in names if not created.search(name)]


def stated_layers() -> list[str]:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = config["tool"]["importlinter"]["contracts"]
    (layers,) = [c["layers"] for c in contracts if c["id"] == "layers"]
    return layers


def test_the_design_page_shows_the_layers_that_are_checked() -> None:
    page = (ROOT / "docs" / "design.md").read_text()
    block = re.search(r"## Layers.*?```text\n(.*?)```", page, re.DOTALL)
    assert block is not None
    shown = [re.split(r"\s{2,}", line.strip())[0] for line in block[1].splitlines()]
    assert shown == stated_layers()


def test_every_package_has_a_layer() -> None:
    stated = {name.strip() for layer in stated_layers() for name in layer.split("|")}
    packages = {m.split(".")[1] for m in FILES if m.count(".") >= 1} - {"__main__"}
    assert stated == packages
