"""``demo``: its errors and the export. ``tests/demo`` opens the page in a browser."""

from __future__ import annotations

import importlib.metadata
import json
import sys

import pytest
from errors_help import check_failed


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_missing_gradio_is_named_with_its_command(invoke, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    result = invoke("demo", "shapes-tiny")
    check_failed(result, "input-gradio-missing", shown="pip install 'cascadezoo[demo]'")
    assert result.exit_code == 2


def test_a_folder_named_gradio_is_not_gradio(invoke, monkeypatch, tmp_path):
    (tmp_path / "gradio").mkdir()
    monkeypatch.delitem(sys.modules, "gradio", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    if list(importlib.metadata.distributions(name="gradio")):
        pytest.skip("gradio is installed and wins over a folder")
    check_failed(invoke("demo", "shapes-tiny"), "input-gradio-missing")


def test_the_export_needs_no_gradio(invoke, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "gradio", None)
    result = invoke("demo", "shapes-tiny", "--export", "space/", "--json")
    assert result.exit_code == 0, result.stderr
    data = json.loads(result.stdout)
    assert [row["reference"] for row in data["models"]] == ["zoo:shapes-tiny"]
    assert (tmp_path / "space" / "app.py").is_file()
    check_failed(invoke("demo", "shapes-tiny", "--export", "space/"), "input-output-exists")
    result = invoke("demo", "shapes-tiny", "--export", "space/", "--force")
    assert result.stdout == "wrote a Space to space: shapes-tiny\n"


@pytest.mark.parametrize(
    ("args", "code", "shown"),
    [
        (["--export", "a", "--port", "80"], "usage", "--port"),
        (["--force"], "usage", "--export"),
        (["--port", "0"], "usage", "65535"),
        (["shapes-tiny"] * 9, "input-demo-models", "8"),
        (["./none", "--export", "a"], "reference-no-folder", "none"),
    ],
)
def test_wrong_options(invoke, args, code, shown):
    check_failed(invoke("demo", *args), code, shown=shown)
