"""The page as a folder for a Space."""

from __future__ import annotations

import ast

import pytest
import torch
import yaml
from errors_help import raises

from cascadezoo import Cascade, __version__
from cascadezoo.demo.space import export_space
from cascadezoo.errors import InputError, ModelReferenceError
from cascadezoo.model_folder.layout import read_config
from cascadezoo.model_folder.recipe import model_digest


def models_of(folder) -> dict[str, str]:
    """The constant MODELS of the app."""
    tree = ast.parse((folder / "app.py").read_text())
    (value,) = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "MODELS"
    ]
    return ast.literal_eval(value)


def test_a_zoo_model_is_pinned_by_its_distribution_and_its_digest(tmp_path):
    folder = tmp_path / "space"
    (row,) = export_space(["shapes-tiny"], folder)
    assert models_of(folder) == {"zoo:shapes-tiny": row.digest}
    lines = (folder / "requirements.txt").read_text().splitlines()
    assert lines == [f"cascadezoo[demo]=={__version__}"]
    text = (folder / "README.md").read_text()
    front = yaml.safe_load(text.split("---\n")[1])
    assert (front["sdk"], front["app_file"]) == ("gradio", "app.py")
    assert len(front["short_description"]) <= 60
    assert "models" not in front
    assert row.digest[:12] in text
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "app.py", "requirements.txt"]


def test_the_files_of_a_local_model_are_copied(tmp_path):
    model = Cascade.from_pretrained("shapes-tiny").save_pretrained(tmp_path / "mine")
    folder = tmp_path / "space"
    (row,) = export_space([str(model)], folder)
    assert row.reference == "./models/shapes-tiny"
    assert str(tmp_path) not in (folder / "app.py").read_text()
    copied = folder / "models" / "shapes-tiny"
    assert model_digest(read_config(copied)) == models_of(folder)[row.reference]


def test_models_of_one_name_have_folders_of_their_own(tmp_path):
    cascade = Cascade.from_pretrained("shapes-tiny")
    one = cascade.save_pretrained(tmp_path / "one")
    with torch.no_grad():
        next(cascade.stage("up").parameters()).mul_(1.5)
    two = cascade.save_pretrained(tmp_path / "two")
    folder = tmp_path / "space"
    rows = export_space([str(one), str(two)], folder)
    assert [row.reference for row in rows] == ["./models/shapes-tiny", "./models/shapes-tiny-2"]
    assert rows[0].digest != rows[1].digest
    for reference, digest in models_of(folder).items():
        assert model_digest(read_config(folder / reference)) == digest


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("mine")
    with raises(InputError, "input-output-not-writable", path=tmp_path / "file" / "space"):
        export_space(["shapes-tiny"], tmp_path / "file" / "space")


def test_nothing_is_replaced_without_force(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    with raises(InputError, "input-output-exists", path=tmp_path):
        export_space(["shapes-tiny"], tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["README.md"]
    with pytest.raises(ModelReferenceError):
        export_space(["./none"], tmp_path, force=True)
    assert (tmp_path / "README.md").read_text() == "mine"
    export_space(["shapes-tiny"], tmp_path, force=True)
    assert (tmp_path / "README.md").read_text().startswith("---\n")
