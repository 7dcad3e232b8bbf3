"""The documentation is what the code does: its blocks are run, its lists are compared."""

from __future__ import annotations

import ast
import base64
import inspect
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import Distribution
from pathlib import Path

import architecture
import cascade_picture
import pytest
from PIL import Image

import cascadezoo
from cascadezoo.plugins import hookspecs
from cascadezoo.plugins.manager import PluginHost, get_registry
from cascadezoo.spec import parse_json
from cascadezoo.testing.template import KINDS, write_project

ROOT = Path(__file__).parents[2]
PAGES = sorted(p for p in (ROOT / "docs").glob("*.md") if p.name != "README.md")
ELSEWHERE = {
    "first-plugin.md",
    "use-a-plugin.md",
    "hooks.md",
    "latent-and-token-stages.md",
    "adversarial-stages.md",
    "gallery.md",
}
"""Pages that install plugins, which test_docs_plugins.py runs where that does no harm, and the
gallery, whose pictures test_docs_gallery.py compares."""
BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.M | re.S)


@dataclass
class Block:
    language: str
    title: str | None
    text: str


def blocks(path: Path) -> list[Block]:
    return [Block(*found) for found in BLOCK.findall(path.read_text())]


@pytest.fixture(scope="module")
def commands(warm: Path) -> Path:
    """The folder of a `cascadezoo` that starts fast."""
    return warm / "bin"


def shell(text: str, folder: Path, commands: Path) -> None:
    """Run a block with `cascadezoo` and `python` of this environment."""
    path = os.pathsep.join([str(commands), str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {**os.environ, "PATH": path}
    if "cascadezoo sweep" in text:
        env["WARM_CHILDREN"] = "1"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"


def run_page(
    page: list[Block], folder: Path, commands: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    names: dict[str, object] = {}
    for block in page:
        if block.text.startswith("# not run:"):
            continue
        if block.title:
            path = folder / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
        elif block.language == "python":
            exec(compile(block.text, "docs", "exec"), names)
        elif block.language == "bash":
            shell(block.text, folder, commands)


@pytest.mark.slow
@pytest.mark.parametrize("page", [p.name for p in PAGES if p.name not in ELSEWHERE])
def test_blocks_run(
    page: str, tmp_path: Path, commands: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_page(blocks(ROOT / "docs" / page), tmp_path, commands, monkeypatch)


@pytest.mark.slow
def test_the_readme_runs(tmp_path: Path, commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = " ".join(f"--set training.phases.{i}.steps=3" for i in range(3))
    quick = f"cascadezoo build shapes-demo {short} --set evaluation.metrics=[] --quiet"
    page = blocks(ROOT / "README.md")
    install, test = (b.text.strip() for b in page if "pip install" in b.text)
    assert install == "pip install . && cascadezoo build shapes-demo"
    assert test == "pip install -e '.[dev]' && make test"
    shell(quick, tmp_path, commands)
    run_page([b for b in page if "pip install" not in b.text], tmp_path, commands, monkeypatch)
    assert (tmp_path / "grid.png").stat().st_size > 1000


def test_json_blocks_are_json() -> None:
    found = 0
    for page in (*PAGES, ROOT / "README.md"):
        for block in blocks(page):
            if block.language == "json":
                text = block.text if block.text.startswith("{") else f"{{{block.text}}}"
                json.loads(text)
                found += 1
    assert found >= 4


def test_the_readmes_spec_resolves() -> None:
    (block,) = (b for b in blocks(ROOT / "README.md") if b.language == "json")
    resolved = cascadezoo.load_spec(parse_json(block.text, "README"))
    assert [str(s.output) for s in resolved.stages] == ["3x16x16", "3x32x32", "3x32x32"]


def test_the_plugin_of_the_docs_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for block in blocks(ROOT / "docs" / "plugins.md"):
        if block.title:
            path = tmp_path / block.title
            path.parent.mkdir(exist_ok=True)
            path.write_text(block.text)
    info = tmp_path / "cascadezoo_brighten-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: cascadezoo-brighten\nVersion: 0.1.0\n"
    )
    (info / "entry_points.txt").write_text("[cascadezoo]\nbrighten = brighten\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    from importlib.metadata import entry_points

    builtin = [
        p for p in entry_points(group="cascadezoo") if p.value == "cascadezoo.plugins.builtin"
    ]
    host = PluginHost([*builtin, *Distribution.at(info).entry_points])
    assert not host.problems
    from cascadezoo.spec import read_spec, resolve

    data = read_spec("diffusion-pixelshuffle-vit-tiny")[0]
    data["stages"][2] = {"name": "refine", "kind": "brighten.v1", "config": {"start": 0.5}}
    resolved = resolve(data, registry=host.registry)
    assert "cascadezoo-brighten>=0.1.0" in resolved.spec.requires
    cascade = cascadezoo.Cascade.from_spec(resolved)
    stages = cascade.sample(2, return_stages=True)
    assert ((stages["up"] + 0.5).clamp(-1, 1) - stages["refine"]).abs().max() < 1e-6


def test_every_hook_is_documented() -> None:
    page = (ROOT / "docs" / "plugins.md").read_text()
    hooks = [
        n for n, f in inspect.getmembers(hookspecs, inspect.isfunction) if n.startswith("register_")
    ]
    assert len(hooks) == 9
    examples = blocks(ROOT / "docs" / "hooks.md")
    for name in hooks:
        assert any(f"\ndef {name}():\n" in block.text for block in examples), name
        # The exact signature, as a plugin must write it.
        signature = str(inspect.signature(getattr(hookspecs, name))).replace("'", "")
        assert f"| `{name}{signature}` |" in page


def test_every_public_name_is_documented() -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    for name in cascadezoo.__all__:
        if name not in ("__version__", "CascadezooError"):  # the latter by ::: cascadezoo.errors
            assert f"::: cascadezoo.{name}\n" in page, name


def test_what_the_templates_import_is_in_the_reference(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    found = set()
    for kind in KINDS:
        for file in write_project("wave", kind, tmp_path / kind).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if (
                    isinstance(node, ast.ImportFrom)
                    and (node.module or "").split(".")[0] == "cascadezoo"
                ):
                    found |= {(node.module, alias.name) for alias in node.names}
    assert len(found) > 30
    assert {module for module, _ in found} == {"cascadezoo", "cascadezoo.testing"}
    for module, name in found:
        if module == "cascadezoo":
            assert f"::: cascadezoo.{name}\n" in page, name
        else:
            assert (
                name in re.search(r"::: cascadezoo.testing\n.*?members: \[(.*?)\]", page, re.S)[1]
            )


def test_every_dataset_is_documented() -> None:
    page = (ROOT / "docs" / "data.md").read_text()
    for name in get_registry().datasets.names():
        assert f"`{name}`" in page


def files_named_in(text: str) -> set[str]:
    """The files in backticks of a page, such as `data/loader.py` or `pyproject.toml`."""
    return set(re.findall(r"`([\w./-]+\.(?:py|toml|md|json))`", text))


def test_files_named_in_the_design_exist() -> None:
    names = files_named_in((ROOT / "docs" / "design.md").read_text())
    assert len(names) > 40
    package = ROOT / "cascadezoo"
    assert [n for n in names if not (ROOT / n).is_file() and not (package / n).is_file()] == []
    assert files_named_in("`data/gone.py` and `x`") == {"data/gone.py"}


def test_the_picture_of_the_architecture() -> None:
    assert architecture.PICTURE.read_text() == architecture.picture(), (
        "run: python tests/docs/architecture.py"
    )
    shown = " ".join(box[3] for box in architecture.BOXES) + " cli/ testing/"
    packages = {p.parent.name for p in (ROOT / "cascadezoo").glob("*/__init__.py")}
    assert {name.rstrip("/") for name in shown.split() if name.endswith("/")} == packages


def pixels_for_data(svg: str) -> str:
    """An SVG with the pixels of its pictures in place of their bytes, which zlib's version changes."""

    def pixels(match: re.Match[str]) -> str:
        with Image.open(io.BytesIO(base64.b64decode(match[1]))) as image:
            return f"{image.size} {image.convert('RGB').tobytes().hex()}"

    return re.sub(r"data:image/png;base64,([A-Za-z0-9+/=]+)", pixels, svg)


def test_the_picture_of_a_cascade() -> None:
    stored = pixels_for_data(cascade_picture.PICTURE.read_text())
    assert stored.count("(32, 32)") == 2
    assert stored == pixels_for_data(cascade_picture.picture()), (
        "run: python tests/docs/cascade_picture.py"
    )
