"""Makes small image sets as folders, tar shards and saved datasets."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def pictures(count: int, size: int = 8, *, seed: int = 0) -> NDArray[np.uint8]:
    """Random images, uint8 [count, size, size, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def png(image: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def write_folder(root: Path, images: NDArray[np.uint8], *, classes: int = 4) -> Path:
    for number, image in enumerate(images):
        path = root / f"c{number % classes}" / f"{number:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(image))
    return root


def write_tar(
    path: Path, files: Iterable[tuple[str, bytes]], form: int = tarfile.USTAR_FORMAT
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def write_shards(
    root: Path, images: NDArray[np.uint8], per_shard: int, *, classes: int = 4
) -> Sequence[Path]:
    shards = []
    for shard, first in enumerate(range(0, len(images), per_shard)):
        files = []
        for number in range(first, min(first + per_shard, len(images))):
            files.append((f"{number:06d}.png", png(images[number])))
            files.append((f"{number:06d}.cls", str(number % classes).encode()))
        shards.append(write_tar(root / f"train-{shard:03d}.tar", files))
    return shards
