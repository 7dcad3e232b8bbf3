"""Data bombs: refused by their headers, within a bounded time and memory."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from errors_help import raises
from numpy.lib import format as npy
from PIL import Image

from cascadezoo.data.files import data_path
from cascadezoo.data.folder import FolderConfig
from cascadezoo.data.folder import load as load_folder
from cascadezoo.data.memory import DATA_VARIABLE
from cascadezoo.data.npz import NpzConfig
from cascadezoo.data.npz import load as load_npz
from cascadezoo.errors import DataError, InputError, ResourceError

MIB = 2**20


@contextmanager
def little_memory(most: int = 48 * MIB) -> Iterator[None]:
    """Fail if the block allocates more at once; numpy reports its arrays."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < most, f"{peak / MIB:.0f} MiB"


def entry(header: dict[str, object], version: tuple[int, int] = (1, 0)) -> bytes:
    out = io.BytesIO()
    write = npy.write_array_header_1_0 if version == (1, 0) else npy.write_array_header_2_0
    write(out, {"fortran_order": False, **header})
    return out.getvalue()


def write_zeros(file: zipfile.ZipFile, name: str, head: bytes, size: int) -> None:
    with file.open(f"{name}.npy", "w", force_zip64=True) as out:
        out.write(head)
        for start in range(0, size, MIB):
            out.write(bytes(min(MIB, size - start)))


@pytest.fixture
def bomb(tmp_path: Path) -> Iterator[zipfile.ZipFile]:
    """An .npz file with 10 images, to which a test adds arrays."""
    with zipfile.ZipFile(tmp_path / "data.npz", "w", zipfile.ZIP_DEFLATED) as file:
        write_zeros(file, "images", entry({"descr": "|u1", "shape": (10, 4, 4)}), 160)
        yield file


def info_of(file: zipfile.ZipFile) -> None:
    name = str(file.filename)
    file.close()
    with little_memory():
        NpzConfig(path=name).info()


@pytest.mark.parametrize(
    ("letters", "count"), [(1_000_000, 20), (6_000_000, 1), (100, 60_000), (17, 300_000)]
)
def test_large_class_names_are_refused(bomb: zipfile.ZipFile, letters: int, count: int) -> None:
    write_zeros(bomb, "labels", entry({"descr": "|u1", "shape": (10,)}), 10)
    head = entry({"descr": f"<U{letters}", "shape": (count,)})
    write_zeros(bomb, "class_names", head, 4 * letters * count)
    with raises(ResourceError, "resources-data", needed=4 * letters * count):
        info_of(bomb)


@pytest.mark.parametrize("count", [1_000_001, 2**40])
def test_class_names_without_letters_are_refused(bomb: zipfile.ZipFile, count: int) -> None:
    write_zeros(bomb, "labels", entry({"descr": "|u1", "shape": (10,)}), 10)
    write_zeros(bomb, "class_names", entry({"descr": "<U0", "shape": (count,)}), 0)
    with raises(DataError, "data-names-form"):
        info_of(bomb)


@pytest.mark.parametrize("kind", ["<i8", "<u4", "|u1"])
def test_labels_over_the_limit_are_refused_and_others_are_read_in_parts(
    bomb: zipfile.ZipFile, kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    size = 64 * MIB
    count = size // np.dtype(kind).itemsize
    path = tmp_path / "many.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        write_zeros(file, "images", entry({"descr": "|u1", "shape": (count, 1, 1)}), count)
        write_zeros(file, "labels", entry({"descr": kind, "shape": (count,)}), size)
    with little_memory():
        assert NpzConfig(path=str(path)).info().num_classes == 1
    monkeypatch.setenv(DATA_VARIABLE, str(size - 1))
    with raises(ResourceError, "resources-data", needed=size, limit=size - 1), little_memory():
        NpzConfig(path=str(path)).info()


def test_test_images_without_rows_are_refused(bomb: zipfile.ZipFile) -> None:
    write_zeros(bomb, "labels", entry({"descr": "|u1", "shape": (10,)}), 10)
    write_zeros(bomb, "test_images", entry({"descr": "|u1", "shape": (0, 4, 4)}), 0)
    write_zeros(bomb, "test_labels", entry({"descr": "|u1", "shape": (0,)}), 0)
    with raises(DataError, "data-array-empty", name="test_images"):
        info_of(bomb)


@pytest.mark.parametrize("size", [20_000, 256 * MIB])
def test_a_large_header_is_not_read(tmp_path: Path, size: int) -> None:
    with zipfile.ZipFile(tmp_path / "data.npz", "w", zipfile.ZIP_DEFLATED) as file:
        head = npy.magic(2, 0) + size.to_bytes(4, "little")
        write_zeros(file, "images", head, size)
    with raises(DataError, "data-array-damaged", name="images"):
        info_of(file)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unbounded_decompressors_are_refused(tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "data.npz", "w", method) as file:
        write_zeros(file, "images", entry({"descr": "|u1", "shape": (4 * MIB, 4, 4)}), 64 * MIB)
    with raises(DataError, "data-array-damaged", name="images"):
        info_of(file)


def test_a_large_table_of_contents_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    with zipfile.ZipFile(path, "w") as file:
        for index in range(100):
            file.writestr(f"{index}{'a' * 60_000}.npy", b"")
    with raises(DataError, "data-npz-unreadable"), little_memory():
        NpzConfig(path=str(path)).info()


def test_many_names_are_not_all_listed(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, **{f"array{index}": np.zeros(1) for index in range(300)})
    with raises(DataError, "data-no-images-array") as caught:
        NpzConfig(path=str(path)).info()
    assert "292" in caught.value.what
    assert len(caught.value.what) < 500 + len(str(path))


@pytest.mark.parametrize("size", [160, 1000])
def test_the_limit_of_images_can_be_changed(
    bomb: zipfile.ZipFile, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb.close()
    config = NpzConfig(path=str(bomb.filename))
    monkeypatch.setenv(DATA_VARIABLE, "159")
    with raises(ResourceError, "resources-data", needed=160, limit=159) as caught:
        load_npz(config, "train")
    assert f"{DATA_VARIABLE}=160" in str(caught.value)
    monkeypatch.setenv(DATA_VARIABLE, str(size))
    assert len(load_npz(config, "train")) == 10
    monkeypatch.setenv(DATA_VARIABLE, "much")
    with raises(InputError, "input-limit-form", name=DATA_VARIABLE):
        load_npz(config, "train")


# --- what is not a file


def special(kind: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link to a pipe":
        os.mkfifo(path.with_name(".pipe"))
        path.symlink_to(path.with_name(".pipe"))
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with socket.socket(socket.AF_UNIX) as server:
            before = Path.cwd()
            os.chdir(path.parent)  # the address of a socket is short
            try:
                server.bind(path.name)
            finally:
                os.chdir(before)


@pytest.mark.parametrize("kind", ["pipe", "link to a pipe", "device", "socket"])
def test_only_regular_files_are_opened(tmp_path: Path, kind: str) -> None:
    special(kind, tmp_path / "data.npz")
    with raises(DataError, "data-not-a-file", path="data.npz"):
        NpzConfig(path=str(tmp_path / "data.npz")).info()
    special(kind, tmp_path / "images" / "b.png")
    config = FolderConfig(path=str(tmp_path / "images"))
    with raises(DataError, "data-not-a-file", path="b.png"):
        config.info()
    Image.new("RGB", (4, 4)).save(tmp_path / "images" / "a.png")
    with raises(DataError, "data-not-a-file", path="b.png"):
        load_folder(config, "train")


@pytest.mark.parametrize("text", ["\0", "a\0b", "~nobody-here", "~nobody-here/a", "\ud800"])
def test_impossible_paths(text: str) -> None:
    with raises(DataError, "data-path-invalid"):
        data_path(text)


# --- folders


@pytest.mark.parametrize("depth", [1, 2, 30])
def test_a_tree_of_links_ends(tmp_path: Path, depth: int) -> None:
    """Each folder has two links to the next, so there are 2**depth paths."""
    for level in range(depth):
        (tmp_path / f".{level}").mkdir()
        for name in "ab":
            (tmp_path / f".{level}" / name).symlink_to(tmp_path / f".{level + 1}")
    (tmp_path / f".{depth}").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / f".{depth}" / "x.png")
    with raises(DataError, "data-folder-twice"):
        FolderConfig(path=str(tmp_path / ".0")).info()


def test_a_folder_and_a_link_to_it_are_an_error_and_a_single_link_is_not(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "elsewhere" / "x.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "one").symlink_to(tmp_path / "elsewhere")
    assert FolderConfig(path=str(tmp_path / "data")).info().size == 4
    (tmp_path / "data" / "two").symlink_to(tmp_path / "elsewhere")
    with raises(DataError, "data-folder-twice", path="two"):
        FolderConfig(path=str(tmp_path / "data")).info()


def test_deep_folders(tmp_path: Path) -> None:
    """Deeper than Python's limit of recursion, so pytest could not remove them."""
    before, depth = Path.cwd(), 0
    os.chdir(tmp_path)
    try:
        for depth in range(1, 1201):  # noqa: B007
            Path("d").mkdir()
            os.chdir("d")
        Image.new("RGB", (4, 4)).save("x.png")
        assert FolderConfig(path=str(tmp_path)).info().size == 4
    finally:
        Path("x.png").unlink(missing_ok=True)
        for _ in range(depth):
            os.chdir("..")
            Path("d").rmdir()
        os.chdir(before)


# --- pictures

_MEASURE = """
import os, sys
from cascadezoo.data import image_decoder
from cascadezoo.data.folder import FolderConfig, load
os.cpu_count = lambda: 8
image_decoder.physical_memory = lambda: 0
image_decoder._IN_FLIGHT = 8 << 20
def peak():
    text = open("/proc/self/status").read()
    return int(text.split("VmHWM:")[1].split()[0]) >> 10
before = peak()
load(FolderConfig(path=sys.argv[1], resize=8), "train")
print(peak() - before)
"""


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_large_pictures_are_decoded_one_at_a_time(tmp_path: Path, mode: str) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak of memory is read from /proc")
    side = 3000
    for index in range(8):
        Image.new(mode, (side, side)).save(tmp_path / f"{index}.png", compress_level=1)
    command = [sys.executable, "-c", _MEASURE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    one = side * side * 4 / MIB
    assert int(done.stdout) < 4 * one + 20


@pytest.mark.parametrize("size", [(9500, 9500), (3, 40_000_000)])
def test_pictures_over_the_limit_are_refused(
    tmp_path: Path, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("1", size).save(tmp_path / "a.png", compress_level=1)
    config = FolderConfig(path=str(tmp_path), resize=4)
    for read in (
        lambda: FolderConfig(path=str(tmp_path)).info(),
        lambda: load_folder(config, "train"),
    ):
        with raises(DataError, "data-image-too-large", path="a.png"):
            read()
    limit = Image.MAX_IMAGE_PIXELS
    monkeypatch.setenv(DATA_VARIABLE, str(4 * size[0] * size[1]))
    assert FolderConfig(path=str(tmp_path)).info().size == min(size)
    assert limit == Image.MAX_IMAGE_PIXELS


def test_a_large_picture_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (4, 4)).save(path)
    with path.open("r+b") as file:
        file.truncate((1 << 30) + 1)  # a hole, without bytes on the disk
    with raises(DataError, "data-image-too-large", path="a.png"):
        FolderConfig(path=str(tmp_path)).info()
    monkeypatch.setenv(DATA_VARIABLE, str(1 << 31))
    assert FolderConfig(path=str(tmp_path)).info().size == 4
