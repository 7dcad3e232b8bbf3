"""Outputs of ``sample`` and ``report`` on a full disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from errors_help import raises
from full_disk import largest_file

from cascadezoo.cli.image_files import format_of, open_images, replacing
from cascadezoo.errors import DiskFullError
from cascadezoo.spec.configs import ImageShape

SHAPE = ImageShape(3, 16)


def draw(path: Path, count: int) -> None:
    what = format_of(str(path), None)
    images = torch.arange(count * 3 * 16 * 16, dtype=torch.uint8).reshape(count, 3, 16, 16)
    opened = open_images(path, what, n=count, image=SHAPE, labelled=True, force=True)
    with opened as file:
        for start in range(0, count, 4):
            rows = images[start : start + 4]
            file.add({"a": rows}, list(range(len(rows))))


def content(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", ["a.png", "a.npz", "folder"])
@pytest.mark.parametrize("size", [0, 20, 60])
def test_a_full_disk_keeps_the_former_images(tmp_path: Path, name: str, size: int) -> None:
    draw(tmp_path / name, 1)
    before = content(tmp_path)
    with (
        largest_file(size),
        raises(DiskFullError, "disk-full", path=name) as caught,
    ):
        draw(tmp_path / name, 12)
    assert caught.value.exit_code == 1
    assert "-o" in str(caught.value.hint)
    assert content(tmp_path) == before


def test_a_disk_that_is_full_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("former")
    with (
        largest_file(10_000),
        raises(DiskFullError, "disk-full", path="page.html"),
        replacing(path) as file,
    ):
        for _ in range(100):
            file.write(b"x" * 999)
    assert content(tmp_path) == {"page.html": b"former"}
