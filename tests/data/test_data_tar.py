"""The reader of tar headers: formats, and hostile archives."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile

import pytest
from errors_help import raises
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shards_help import pictures, png, write_tar

from cascadezoo.data.tar_index import TarDamageError, read_index, read_member
from cascadezoo.data.webdataset import WebDatasetConfig, open_source
from cascadezoo.errors import DataError

FORMS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_the_files_of_python_tars_are_found(tmp_path, form):
    files = [("a.png", b"1234"), ("b/" + "c" * 80 + ".cls", b""), ("d.png", os.urandom(5000))]
    if form != tarfile.USTAR_FORMAT:
        files += [("long/" * 60 + "é.png", b"x"), ("e.png", b"yz")]
    path = write_tar(tmp_path / "t.tar", files, form)
    found = list(read_index(path))
    assert [member.name for member in found] == [name for name, _ in files]
    for member, (_, content) in zip(found, files, strict=True):
        assert read_member(path, member.offset, member.size) == content


def test_tars_of_the_command_are_read(tmp_path):
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "sub" / "1.png").write_bytes(b"abc")
    for form in ("ustar", "gnu", "posix", "v7"):
        path = tmp_path / f"{form}.tar"
        command = ["tar", f"--format={form}", "-C", str(tmp_path / "in"), "-cf", str(path), "sub"]
        subprocess.run(command, check=True)
        (member,) = read_index(path)
        assert (member.name, read_member(path, member.offset, member.size)) == ("sub/1.png", b"abc")


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_damage_anywhere_is_an_error_or_harmless(tmp_path, data):
    files = [("a.png", b"12345" * 300), ("long/" * 40 + "b.png", b"67"), ("c.cls", b"1")]
    path = write_tar(
        tmp_path / "t.tar", files, data.draw(st.sampled_from(list(FORMS.values())[1:]))
    )
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        found = list(read_index(path))
    except TarDamageError:
        return
    assert all(member.offset + member.size <= path.stat().st_size for member in found)


def header(name=b"a.png", size=b"00000000005\0", kind=b"0"):
    block = bytearray(512)
    block[: len(name)] = name
    block[124:136] = size
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


HUGE = b"\x80\0\0\0" + (1 << 61).to_bytes(8, "big")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (header(size=b"77777777777\0") + b"x" * 512, "truncated"),
        (header(size=HUGE), "truncated"),
        (header(size=b"\xff" * 12), "impossible number"),
        (header(size=b"0000000009\0\0"), "not octal"),
        (header(kind=b"x", size=b"77777777777\0"), "extended header has"),
        (header(kind=b"L", size=b"00001000000\0") + b"a" * 1000, "extended header has"),
        (header(kind=b"x", size=b"00000000012\0") + b"99 path=a\n".ljust(512, b"\0"), "malformed"),
        (header(kind=b"x", size=b"00000000012\0") + b"0 path=aa\n".ljust(512, b"\0"), "malformed"),
        (header(kind=b"1"), "a link"),
        (header(kind=b"2"), "a link"),
        (header(kind=b"3"), "a device"),
        (header(kind=b"6"), "a pipe"),
        (header(kind=b"S"), "a sparse file"),
        (b"\x1f\x8b" + b"x" * 600, "compressed with gzip"),
        (b"not a tar at all" * 40, "wrong checksum"),
        (b"", "truncated"),
    ],
)
def test_hostile_tars_are_refused(tmp_path, content, reason):
    path = tmp_path / "t.tar"
    path.write_bytes(content)
    with pytest.raises(TarDamageError, match=reason):
        list(read_index(path))
    with raises(DataError, "data-no-samples") as caught:
        WebDatasetConfig(path=str(path)).info()
    assert reason.split()[0] in caught.value.what


def test_names_are_only_keys(tmp_path):
    good = png(pictures(1)[0])
    names = ["../../out.png", "/etc/out.png", "a\x1b[31m.png"]
    files = [f for n in names for f in ((n, good), (n[:-4] + ".cls", b"0"))]
    write_tar(tmp_path / "in" / "t.tar", files, tarfile.PAX_FORMAT)
    source = open_source(WebDatasetConfig(path=str(tmp_path / "in")), "train")
    assert len(source) == 3
    assert "\x1b" not in source.title(2)
    assert [p.name for p in tmp_path.rglob("*")] == ["in", "t.tar"]


def test_a_pipe_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "t.tar")
    with raises(DataError, "data-not-a-file"):
        WebDatasetConfig(path=str(tmp_path / "*.tar")).info()


@pytest.mark.parametrize("size", [9500, 30000])
def test_a_picture_bomb_in_a_shard_is_refused(tmp_path, size):
    code = (
        "import io, sys; from PIL import Image; Image.MAX_IMAGE_PIXELS = None\n"
        f"Image.new('1', ({size}, {size})).save(sys.argv[1])"
    )
    bomb = tmp_path / "bomb.png"
    subprocess.run([sys.executable, "-c", code, str(bomb)], check=True)
    write_tar(tmp_path / "t.tar", [("0.png", bomb.read_bytes()), ("0.cls", b"0")])
    with raises(DataError, "data-image-too-large"):
        WebDatasetConfig(path=str(tmp_path / "t.tar")).info()


def test_a_large_member_is_left_out_unread(tmp_path, monkeypatch):
    monkeypatch.setenv("CASCADEZOO_MAX_DATA_BYTES", "5000")
    good = png(pictures(1)[0])
    info = tarfile.TarInfo("1.png")
    info.size = 6000
    path = tmp_path / "t.tar"
    with tarfile.open(path, "w") as tar:
        for name, content in (("0.png", good), ("0.cls", b"0")):
            first = tarfile.TarInfo(name)
            first.size = len(content)
            tar.addfile(first, io.BytesIO(content))
        tar.addfile(info, io.BytesIO(b"x" * 6000))
    source = open_source(WebDatasetConfig(path=str(path)), "train")
    assert len(source) == 1
    assert "more than the limit of 5,000" in source.damage.images["t.tar: 1.png"]
