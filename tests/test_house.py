"""The layout: packages that explain themselves, imports without circles, layers stated once."""

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

# The folders where people add things.
ROOMS = [
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


# Not the cards of models.
READMES = [p for p in sorted(PACKAGE.rglob("README.md")) if "models" not in p.parts]


def imported(node: ast.AST) -> Iterator[str]:
    """The modules that code imports, inside functions too; not those under TYPE_CHECKING."""
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


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a ring; empty without one."""
    done: set[str] = set()
    for start in graph:
        path: list[str] = []
        stack: list[tuple[str, Iterator[str]]] = []
        if start not in done:
            path, stack = [start], [(start, iter(sorted(graph[start])))]
        while stack:
            module, rest = stack[-1]
            following = next(rest, None)
            if following is None:
                done.add(module)
                stack.pop()
                path.pop()
            elif following in path:
                return [*path[path.index(following) :], following]
            elif following not in done:
                path.append(following)
                stack.append((following, iter(sorted(graph[following]))))
    return []


def test_a_circle_is_seen() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_imports_in_a_circle_not_even_deferred_ones() -> None:
    graph = {module: set(imported(tree)) - {module} for module, tree in TREES.items()}
    assert sum(map(len, graph.values())) > 1000
    assert circle(graph) == []


def test_no_two_classes_share_a_name() -> None:
    homes = defaultdict(set)
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].add(module)
    assert {name: sorted(where) for name, where in homes.items() if len(where) > 1} == {}


def test_each_package_says_what_it_is_for() -> None:
    packages = {m: t for m, t in TREES.items() if FILES[m].name == "__init__.py"}
    for module, tree in packages.items():
        text = ast.get_docstring(tree)
        assert text, module
        # The kinds of stages say themselves in a line; the rooms in two or three sentences.
        if not module.startswith("cascadezoo.stages."):
            assert len(re.findall(r"\.(?=\s|$)", text)) >= 2, module


@pytest.mark.parametrize("room", ROOMS)
def test_a_readme_where_people_add_things(room: str) -> None:
    folder = PACKAGE / room
    text = (folder / "README.md").read_text()
    lines = [line for line in text.splitlines() if line.strip()]
    assert 5 <= len(lines) <= 30
    assert len(named(text)) >= 3


@pytest.mark.parametrize("readme", READMES, ids=lambda p: str(p.parent.name))
def test_readmes_name_files_that_exist(readme: Path) -> None:
    for name in named(readme.read_text()):
        places = [folder / name for folder in (readme.parent, ROOT, PACKAGE)]
        there = any(place.exists() for place in places) or [*readme.parent.rglob(f"*/{name}")]
        assert there, f"{readme}: {name}"


def named(text: str) -> list[str]:
    """The files and folders that a README names, without those that a newcomer makes."""
    found = re.findall(r"`([\w./-]+(?:\.py|\.md|\.json|\.css|\.js|/))`", text)
    made = re.compile(r"mine|NAME|name>")
    return [name for name in found if not made.search(name)]


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


def test_every_package_has_its_layer() -> None:
    stated = {name.strip() for layer in stated_layers() for name in layer.split("|")}
    there = {m.split(".")[1] for m in FILES if m.count(".") >= 1} - {"__main__"}
    assert stated == there
