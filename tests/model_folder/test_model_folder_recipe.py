"""Recipes in PNG files, also hostile ones."""

from __future__ import annotations

import json
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from errors_help import raises
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from cascadezoo import Recipe, read_recipe
from cascadezoo.errors import CascadezooError, DataError, InputError

GOOD: dict[str, Any] = {
    "format": 1,
    "command": "sample",
    "cascadezoo_version": "0.1.0",
    "model": "shapes-tiny",
    "reference": "zoo:shapes-tiny",
    "digest": "a" * 64,
    "seed": 3,
    "settings": {"n": 2, "labels": [1, 5], "first": 1, "steps": {"coarse": 4}, "eta": 0.5},
}


def write(path: Path, text: str | bytes, *, keyword: str = "cascadezoo") -> Path:
    info = PngInfo()
    info.add(b"tEXt", keyword.encode() + b"\0" + (text.encode() if isinstance(text, str) else text))
    Image.new("RGB", (4, 4)).save(path, pnginfo=info)
    return path


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "picture.png"


def test_a_recipe_survives_a_file(place: Path) -> None:
    recipe = Recipe.model_validate(GOOD)
    Image.new("L", (3, 3)).save(place, pnginfo=recipe.png_info())
    assert read_recipe(place) == recipe
    assert recipe.arguments() == {
        "n": 2,
        "first": 1,
        "batch_size": 64,
        "labels": [5, 1],
        "steps": {"coarse": 4},
        "guidance": None,
        "sampler": None,
        "precision": None,
        "options": {"eta": 0.5},
        "seed": 3,
    }
    with raises(InputError, "input-recipe-command", name="edit"):
        recipe.model_copy(update={"command": "edit"}).arguments()


@pytest.mark.parametrize(
    "change",
    [
        {"reference": "/etc/passwd"},
        {"reference": "./model"},
        {"reference": "runs/mine"},
        {"reference": "shapes-tiny"},
        {"reference": "https://example.com/model"},
        {"reference": "file:///etc/passwd"},
        {"reference": "zoo:../../etc"},
        {"reference": "hf://org/name"},
        {"reference": "hf://org/../name@" + "0" * 40},
        {"reference": "hf://org/name@main"},
        {"digest": "abc"},
        {"digest": None},
        {"seed": -1},
        {"seed": 2**70},
        {"seed": 1.5},
        {"command": "rm"},
        {"format": 2},
        {"model": "x" * 300},
        {"extra": 1},
        {"settings": []},
    ],
)
def test_strange_fields_are_refused(place: Path, change: dict[str, Any]) -> None:
    with raises(InputError, "input-recipe-invalid"):
        read_recipe(write(place, json.dumps({**GOOD, **change})))


@pytest.mark.parametrize(
    "change",
    [
        {"n": 0},
        {"n": 10**12},
        {"n": "2"},
        {"steps": 10**9},
        {"steps": {"a/b": 3}},
        {"sampler": "a b"},
        {"labels": [-1]},
        {"labels": list(range(10_001))},
        {"index": -1},
        {"strip": "other"},
        {"stage": "../x"},
        {"guidance": float("1e9")},
        {"options": {"weights": "/etc"}},
        {"out": "/tmp/x.png"},
    ],
)
def test_strange_settings_are_refused(place: Path, change: dict[str, Any]) -> None:
    text = json.dumps({**GOOD, "settings": {**GOOD["settings"], **change}})
    with raises(InputError, "input-recipe-invalid"):
        read_recipe(write(place, text)).arguments()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "input-recipe-not-json"),
        ("{", "input-recipe-not-json"),
        ("[1]", "input-recipe-not-json"),
        ('{"seed": NaN}', "input-recipe-not-json"),
        ('{"seed": 1, "seed": 2}', "input-recipe-not-json"),
        ("[" * 30_000, "input-recipe-not-json"),
        (b"\xff\xfe\x00", "input-recipe-not-json"),
        ("{}", "input-recipe-invalid"),
        ('{"model": "\\u001b[2J"}', "input-recipe-invalid"),
        (" " * 70_000, "input-recipe-damaged"),
    ],
)
def test_malformed_text_is_refused(place: Path, text: str | bytes, code: str) -> None:
    with raises(InputError, code) as caught:
        read_recipe(write(place, text))
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 3000


def test_files_without_a_recipe(place: Path, tmp_path: Path) -> None:
    with raises(InputError, "input-recipe-missing", path=place):
        read_recipe(write(place, "hello", keyword="Comment"))
    place.write_bytes(b"GIF89a")
    with raises(InputError, "input-recipe-not-png", path=place):
        read_recipe(place)
    with raises(InputError, "input-recipe-unreadable"):
        read_recipe(tmp_path / "none.png")
    with raises(InputError, "input-recipe-unreadable"):
        read_recipe(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    with raises(DataError, "data-not-a-file"):  # and it does not wait for a writer
        read_recipe(tmp_path / "pipe.png")


def chunk(kind: bytes, data: bytes, crc: int | None = None) -> bytes:
    crc = zlib.crc32(kind + data) if crc is None else crc
    return struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", crc)


def test_damaged_chunks(place: Path) -> None:
    text = b"cascadezoo\0" + json.dumps(GOOD).encode()
    head = b"\x89PNG\r\n\x1a\n"
    end = chunk(b"IEND", b"")
    cases = {
        "twice": (head + chunk(b"tEXt", text) * 2 + end, "input-recipe-damaged"),
        "sum": (head + chunk(b"tEXt", text, crc=1) + end, "input-recipe-damaged"),
        "cut": (head + chunk(b"tEXt", text)[:-60], "input-recipe-damaged"),
        "long": (head + struct.pack(">I4s", 2**31, b"tEXt") + text, "input-recipe-damaged"),
        "many": (head + chunk(b"abcd", b"") * 100_001 + end, "input-recipe-damaged"),
        "after the end": (head + end + chunk(b"tEXt", text), "input-recipe-missing"),
        "compressed": (
            head + chunk(b"zTXt", b"cascadezoo\0\0" + zlib.compress(b" " * 10**7)) + end,
            "input-recipe-missing",
        ),
    }
    for name, (content, code) in cases.items():
        place.write_bytes(content)
        with pytest.raises(CascadezooError) as caught:
            read_recipe(place)
        assert caught.value.code == code, name
    place.write_bytes(head + chunk(b"tEXt", text))
    assert read_recipe(place).seed == 3
