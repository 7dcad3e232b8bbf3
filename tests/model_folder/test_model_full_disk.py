"""Changes and copies of models, and a zoo's manifest, on a full disk."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from errors_help import raises
from full_disk import largest_file
from lone_spec import lone_spec

from cascadezoo import Cascade
from cascadezoo.errors import DiskFullError
from cascadezoo.hub.folder_copy import publish_local
from cascadezoo.hub.pull import pull
from cascadezoo.model_folder.integrity import check_files, replace_files
from cascadezoo.model_folder.layout import read_config
from cascadezoo.zoo.manifest import Manifest, write_manifest


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    Cascade.from_spec(lone_spec()).save_pretrained(folder)
    return folder


@pytest.fixture
def model(saved: Path, tmp_path: Path) -> Path:
    shutil.copytree(saved, tmp_path / "model")
    return tmp_path / "model"


def content(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


@pytest.mark.parametrize("size", [0, 100, 5000])
def test_a_change_without_room_keeps_the_model(model: Path, size: int) -> None:
    before = content(model)
    with largest_file(size), raises(DiskFullError, "disk-full") as caught:
        replace_files(model, read_config(model), {"README.md": b"new\n" * 2000})
    assert caught.value.exit_code == 1
    check_files(model, read_config(model))
    assert content(model) == before
    replace_files(model, read_config(model), {"README.md": b"new\n"})
    assert (model / "README.md").read_bytes() == b"new\n"


@pytest.mark.parametrize("copy", [publish_local, pull])
@pytest.mark.parametrize("size", [0, 5000])
def test_a_copy_without_room_leaves_no_destination(
    model: Path, tmp_path: Path, copy: Callable[[Path, Path], object], size: int
) -> None:
    with largest_file(size), raises(DiskFullError, "disk-full"):
        copy(model, tmp_path / "there")
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    copy(model, tmp_path / "there")
    assert content(tmp_path / "there") == content(model)


def test_a_manifest_without_room_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "zoo_manifest.json"
    path.write_text("former")
    with largest_file(5), raises(DiskFullError, "disk-full", path="zoo_manifest.json"):
        write_manifest(path, Manifest(version=1, models=[]))
    assert content(tmp_path) == {"zoo_manifest.json": b"former"}
