"""Links, pipes, devices and huge files in a model folder are not opened."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from errors_help import raises
from pull_cases import WEIGHTS, contents, resealed, write_files

from cascadezoo import Cascade
from cascadezoo.cards.card_file import read_card
from cascadezoo.errors import ModelError, ModelReferenceError
from cascadezoo.hub.folder_copy import publish_local
from cascadezoo.hub.pull import pull
from cascadezoo.model_folder.files import open_file, read_file
from cascadezoo.model_folder.integrity import check_files
from cascadezoo.model_folder.layout import read_config
from cascadezoo.model_folder.metrics_file import read_metrics
from cascadezoo.model_folder.snapshots import is_snapshot
from cascadezoo.report.recorded_metrics import read_recorded
from cascadezoo.util.files import FileRefusedError, open_regular

pytestmark = pytest.mark.usefixtures("workdir")

SECRET = b"the secret of another file"
COMMIT = "0123456789" * 4


def link(path: Path, outside: Path) -> None:
    outside.write_bytes(SECRET)
    path.symlink_to(outside)


def relative_link(path: Path, outside: Path) -> None:
    outside.write_bytes(SECRET)
    path.symlink_to(os.path.relpath(outside, path.parent))


def chain(path: Path, outside: Path) -> None:
    link(outside.with_name("between"), outside)
    path.symlink_to(outside.with_name("between"))


def fifo_link(path: Path, outside: Path) -> None:
    os.mkfifo(outside)
    path.symlink_to(outside)


def bound_socket(path: Path, outside: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(outside))
    outside.rename(path)


HOSTILE: dict[str, tuple[str, Callable[[Path, Path], object]]] = {
    "link": ("link", link),
    "relative link": ("link", relative_link),
    "chain of links": ("link", chain),
    "link to a device": ("link", lambda path, _: path.symlink_to("/dev/zero")),
    "link to a pipe": ("link", fifo_link),
    "link to a folder": ("link", lambda path, outside: path.symlink_to(outside.parent)),
    "link to itself": ("link", lambda path, _: path.symlink_to(path)),
    "link to nothing": ("link", lambda path, _: path.symlink_to("nothing")),
    "pipe": ("special", lambda path, _: os.mkfifo(path)),
    "folder": ("special", lambda path, _: path.mkdir()),
    "socket": ("special", bound_socket),
    "huge": ("size", lambda path, _: (path.touch(), os.truncate(path, 1 << 42))),
}
FILES = ("README.md", "config.json", "metrics.json", "samples.png", WEIGHTS)


@pytest.fixture
def model(files: dict[str, bytes], tmp_path: Path) -> Path:
    return write_files(tmp_path / "model", resealed(files, **{"samples.png": b"\x89PNG\r\n\x1a\n"}))


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_not_a_regular_file_is_refused(
    model: Path, tmp_path: Path, name: str, kind: str
) -> None:
    reason, make = HOSTILE[kind]
    config = read_config(model)
    (model / name).unlink()
    (tmp_path / "outside").mkdir()
    make(model / name, tmp_path / "outside" / "file")
    with pytest.raises(FileRefusedError) as refused:
        open_file(model, name)
    assert refused.value.reason == reason
    codes = {
        "link": "model-symlink",
        "special": "model-file-special",
        "size": "model-file-too-large",
    }
    with raises(ModelError, codes[reason], name=name):
        read_file(model, name)
    readers: dict[str, Callable[[Path], Any]] = {
        "README.md": read_card,
        "config.json": read_config,
        "metrics.json": read_metrics,
    }
    if name in readers:
        with raises(ModelError, codes[reason], name=name):
            readers[name](model)
    if name == "metrics.json":
        with raises(ModelError, codes[reason], name=name):
            read_recorded(model)
    if name in config.files:
        with raises(ModelError, "model-damaged", faults={name: reason}):
            check_files(model, config, [name])
    if name in (WEIGHTS, "config.json"):
        with pytest.raises((ModelError, ModelReferenceError)):
            Cascade.from_pretrained(model)
    for action in (publish_local, pull):
        with pytest.raises((ModelError, ModelReferenceError)):
            action(model, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("part", ["stages", "stages/coarse"])
def test_files_in_linked_folders_are_refused(model: Path, tmp_path: Path, part: str) -> None:
    (model / part).rename(tmp_path / "elsewhere")
    (model / part).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileRefusedError) as refused:
        open_file(model, WEIGHTS)
    assert refused.value.reason == "link"
    for action in (publish_local, pull):
        with raises(ModelError, "model-damaged", faults={WEIGHTS: "link"}):
            action(model, tmp_path / "copy")


def test_the_folder_that_a_user_names_may_be_a_link(model: Path, tmp_path: Path) -> None:
    (tmp_path / "name").symlink_to(model)
    Cascade.from_pretrained(tmp_path / "name")
    publish_local(tmp_path / "name", tmp_path / "copy")
    assert contents(tmp_path / "copy") == contents(model)


def test_a_limit_is_the_largest_accepted_size(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    with open_regular(tmp_path, "file", 5) as file:
        assert file.read() == b"12345"
    with pytest.raises(FileRefusedError):
        open_regular(tmp_path, "file", 4)


# --- snapshots


@pytest.fixture
def snapshot(files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A snapshot in the cache in use, as the Hub's client makes it."""
    repo = tmp_path / "hub" / "models--org--lone"
    folder = repo / "snapshots" / COMMIT
    (repo / "blobs").mkdir(parents=True)
    for number, (name, content) in enumerate(files.items()):
        (repo / "blobs" / str(number)).write_bytes(content)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        target = os.path.relpath(repo / "blobs" / str(number), (folder / name).parent)
        (folder / name).symlink_to(target)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return folder


def test_links_of_a_snapshot_in_the_cache_in_use_are_followed(
    snapshot: Path, files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_snapshot(snapshot)
    Cascade.from_pretrained(snapshot)
    assert pull(snapshot, tmp_path / "copy").repo == "org/lone"
    assert contents(tmp_path / "copy") == dict(files)
    (tmp_path / "name").symlink_to(tmp_path / "hub")  # a cache on another disk
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "name"))
    pull(snapshot, tmp_path / "again")
    pull(tmp_path / "name" / snapshot.relative_to(tmp_path / "hub"), tmp_path / "third")


@pytest.mark.parametrize("name", ["README.md", "metrics.json", WEIGHTS, "config.json"])
@pytest.mark.parametrize("target", ["secret", "hub/secret", "hub/models--org--lone/secret",
                                    "hub/models--org--other/blobs/0"])  # fmt: skip
def test_links_of_a_snapshot_lead_into_the_blobs_of_its_repo(
    snapshot: Path, tmp_path: Path, name: str, target: str
) -> None:
    (tmp_path / target).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / target).write_bytes((snapshot / name).read_bytes())  # not even if it fits
    (snapshot / name).unlink()
    (snapshot / name).symlink_to(tmp_path / target)
    with pytest.raises(FileRefusedError) as refused:
        open_file(snapshot, name)
    assert refused.value.reason == "link"
    if name == "README.md":
        with raises(ModelError, "model-symlink", name=name):
            read_card(snapshot)
    for action in (publish_local, pull):
        with pytest.raises((ModelError, ModelReferenceError)):
            action(snapshot, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("place", ["other", "hub/nested", "hub/models--org--linked"])
@pytest.mark.parametrize("name", ["README.md", "config.json", WEIGHTS])
def test_a_folder_that_is_shaped_like_a_snapshot_is_an_ordinary_folder(
    snapshot: Path, files: dict[str, bytes], tmp_path: Path, place: str, name: str
) -> None:
    """Elsewhere than in the cache, links are refused, also those into blobs."""
    repo = tmp_path / place
    if "models--" in place:  # in the cache only by its name
        real = tmp_path / "stranger" / "models--org--linked"
        real.mkdir(parents=True)
        repo.symlink_to(real)
    else:
        repo = repo / "models--org--lone"
    folder = write_files(repo / "snapshots" / COMMIT, files)
    assert not is_snapshot(folder)
    Cascade.from_pretrained(folder)  # without links it is a model
    (repo / "blobs").mkdir()
    (folder / name).rename(repo / "blobs" / "0")
    (folder / name).symlink_to(os.path.relpath(repo / "blobs" / "0", (folder / name).parent))
    with pytest.raises(FileRefusedError):
        open_file(folder, name)
    for action in (publish_local, pull):
        with pytest.raises(ModelError) as refused:
            action(folder, tmp_path / "copy")
        assert name in refused.value.what
    assert not (tmp_path / "copy").exists()
