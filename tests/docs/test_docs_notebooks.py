"""The notebooks of the documentation: without outputs, and running."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
SHOWN = ("_repr_html_", "_repr_png_")
"""How an object shows itself in a notebook; one of them is called, as Jupyter does."""


def cells(path: Path, kind: str) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


def run_cell(source: str, names: dict[str, Any], where: str) -> object:
    """Run a cell; the value of its last expression, or None."""
    tree = ast.parse(source, where)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, where, "exec"), names)
    if last is None:
        return None
    value = eval(compile(ast.Expression(last.value), where, "eval"), names)
    shown = next((getattr(value, name) for name in SHOWN if hasattr(value, name)), None)
    assert value is None or (shown() if shown is not None else repr(value)), where
    return value


def test_there_are_two() -> None:
    assert [path.name for path in NOTEBOOKS] == ["draw.ipynb", "train.ipynb"]
    page = (ROOT / "docs" / "index.md").read_text()
    for path in NOTEBOOKS:
        assert f"(notebooks/{path.name})" in page


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_is_valid_and_has_no_outputs(path: Path) -> None:
    data = json.loads(path.read_text())
    assert (data["nbformat"], data["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in data["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in cells(path, "code"):
        assert (cell["outputs"], cell["execution_count"]) == ([], None)
    assert cells(path, "markdown")[0]["source"][0].startswith("# ")
    assert path.stat().st_size < 20_000


def test_the_value_of_a_cell_is_its_last_expression() -> None:
    names: dict[str, Any] = {}
    assert run_cell("a = 1", names, "cell") is None
    assert run_cell("b = 2\na + b", names, "cell") == 3
    with pytest.raises(ZeroDivisionError):
        run_cell("1 / 0", names, "cell")


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STEPS", "8")
    names: dict[str, Any] = {}
    pictures = 0
    for number, cell in enumerate(cells(path, "code")):
        value = run_cell("".join(cell["source"]), names, f"{path.name}, cell {number}")
        pictures += hasattr(value, "_repr_png_")
    assert pictures >= 4
