"""Transfers the project to a machine without a network, and results back.

python tests/gpu/kit.py pack .kit                      # here: missing wheels, CIFAR-10, networks
python3 tests/gpu/kit.py unpack .kit --to /tmp/kit     # there, after each transfer
. /tmp/kit/env.sh && cascadezoo plan cifar10-ddpm $KIT_DATA
python3 tests/gpu/kit.py results save runs/a --out $OUT      # there
python tests/gpu/kit.py results join FOLDER --to runs/back   # here

Every piece is a separate folder, so that each transfer can take those that fit. Unpacking needs only
numpy, Pillow and packaging, and torch for the networks.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version
from PIL import Image

REPO = Path(__file__).resolve().parents[2]
CACHE = Path.home() / ".cache" / "cascadezoo-dev"
FOLDER, TO = Path(".kit"), Path(tempfile.gettempdir()) / "kit"

# Packages that the other machine lacks: dependencies, and packages to compare with.
WHEELS = {
    "pydantic": "2.14.4",
    "pydantic-core": "2.50.5",
    "annotated-types": "0.8.0",
    "typing-inspection": "0.4.5",
    "typing-extensions": "4.16.0",
    "lpips": "0.1.4",
    "torch-fidelity": "0.4.0",
    "diffusers": "0.42.1",
    "importlib-metadata": "10.2.0",
    "lazy-importer": "0.1.0",
    "denoising-diffusion-pytorch": "2.3.4",
    "ema-pytorch": "0.8.3",
    "pytorch-fid": "0.3.0",
}
PYTHON = "3.12"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")

NETWORKS = {
    "inception": "weights-inception-2015-12-05-6726825d.pth",
    "vgg": "vgg16-397923af.pth",
}

PART_IMAGES, SHEET_IMAGES, SHEET_COLUMNS = 10_000, 1_000, 25
SMALL = {"train": 150, "test": 50}
SMALL_PART_IMAGES, SMALL_SHEET_IMAGES = 60, 25

# Limits of one command's results, slightly below 16 and 64 MiB and 8 files.
RESULT_PART_BYTES, RESULT_BYTES, RESULT_FILES = 15 * 2**20, 63 * 2**20, 8
MIB = 2**20


class KitError(Exception):
    """An error with a message for the user."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return 0, or 2 after printing an error."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (KitError, OSError, subprocess.CalledProcessError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)

    pack = commands.add_parser("pack", help="write the pieces to transfer into a folder")
    pack.add_argument("folder", type=Path, nargs="?", default=FOLDER)
    pack.add_argument(
        "--part", choices=["wheels", "data", *NETWORKS, "all"], action="append", default=None
    )
    pack.add_argument("--small", action="store_true", help="only 200 images")
    pack.add_argument("--cifar", type=Path, default=CACHE / "cifar10.npz")
    pack.add_argument("--torch-home", type=Path, default=CACHE / "torch_home")
    pack.set_defaults(run=_pack)

    unpack = commands.add_parser("unpack", help="install and decode the pieces that have arrived")
    unpack.add_argument("folder", type=Path, nargs="?", default=FOLDER)
    unpack.add_argument("--to", type=Path, default=TO, help="a folder outside the checkout")
    unpack.add_argument("--complete", action="store_true", help="fail if images are missing")
    unpack.set_defaults(run=_unpack)

    results = commands.add_parser("results", help="transfer large files back in parts")
    ways = results.add_subparsers(required=True)
    save = ways.add_parser("save", help="pack files and folders into parts")
    save.add_argument("files", type=Path, nargs="+")
    save.add_argument("--out", type=Path, default=os.environ.get("OUT"), help="default: $OUT")
    save.add_argument("--name", default="results", help="prefix of the parts")
    save.add_argument("--compress", action="store_true", help="use gzip; weights hardly shrink")
    save.set_defaults(run=_save)
    join = ways.add_parser("join", help="verify the parts and restore the files")
    join.add_argument("folder", type=Path)
    join.add_argument("--to", type=Path, required=True)
    join.set_defaults(run=_join)
    return parser


# --- pack ---------------------------------------------------------------------------------------


def _pack(options: argparse.Namespace) -> None:
    folder: Path = options.folder
    parts = set(options.part or ["data" if options.small else "all"])
    if options.small and parts != {"data"}:
        raise KitError("--small packs only images; omit --part")
    if "all" in parts:
        parts = {"wheels", "data", *NETWORKS}
    folder.mkdir(parents=True, exist_ok=True)
    if "wheels" in parts:
        pack_wheels(folder / "wheels")
    if "data" in parts:
        pack_data(folder, _arrays(options.cifar, small=options.small), small=options.small)
    for name in sorted(parts & set(NETWORKS)):
        source = options.torch_home / "hub" / "checkpoints" / NETWORKS[name]
        if not source.is_file():
            raise KitError(f"{source} does not exist; set --torch-home")
        pack_network(folder / name, source)
    for piece in sorted(path for path in folder.iterdir() if path.is_dir()):
        size = sum(file.stat().st_size for file in piece.iterdir())
        print(f"{piece.name:12} {size / MIB:7.2f} MiB  {size:>11,} bytes")


def pack_wheels(folder: Path) -> None:
    """Download the wheels of ``WHEELS`` for the other machine, unless ``folder`` has them."""
    if _wheel_versions(folder) == WHEELS:
        return
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--implementation", "cp"]
    command += ["--python-version", PYTHON, "--dest", str(folder)]
    command += [word for platform in PLATFORMS for word in ("--platform", platform)]
    subprocess.run([*command, *(f"{n}=={v}" for n, v in WHEELS.items())], check=True)
    versions = _wheel_versions(folder)
    if versions != WHEELS:
        raise KitError(f"{folder} contains {versions}, not the versions of WHEELS")


def _wheel_versions(folder: Path) -> dict[str, str]:
    rows = (parse_wheel_filename(path.name)[:2] for path in folder.glob("*.whl"))
    versions = {str(name): str(version) for name, version in rows}
    return {name: versions.pop(name) for name in WHEELS if name in versions} | versions


def _arrays(path: Path, *, small: bool) -> dict[str, NDArray[Any]]:
    """The arrays of the development cache; random ones for a small kit without it."""
    if path.is_file():
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
    elif small:
        rng = np.random.default_rng(0)
        arrays = {"class_names": np.array([f"class {n}" for n in range(10)])}
        for split, count in SMALL.items():
            arrays[f"{split}_images"] = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
            arrays[f"{split}_labels"] = (np.arange(count) % 10).astype(np.uint8)
    else:
        raise KitError(f"{path} does not exist; set --cifar")
    if small:
        for split, count in SMALL.items():
            for what in ("images", "labels"):
                arrays[f"{split}_{what}"] = arrays[f"{split}_{what}"][:count]
    return arrays


def pack_data(folder: Path, arrays: dict[str, NDArray[Any]], *, small: bool) -> None:
    """Write the images of both splits as folders of lossless WebP sheets.

    Args:
        folder: gets ``data-1`` and so on for the training images and ``data-test``.
        arrays: ``train_images`` and ``test_images``, uint8 [N, 32, 32, 3], their labels, uint8 [N],
            and ``class_names``.
        small: few images per part, for tests.
    """
    for old in folder.glob("data-*"):
        shutil.rmtree(old)
    per_part = SMALL_PART_IMAGES if small else PART_IMAGES
    per_sheet = SMALL_SHEET_IMAGES if small else SHEET_IMAGES
    whole = {
        split: {
            "count": len(arrays[f"{split}_images"]),
            "images_sha256": _digest(arrays[f"{split}_images"]),
            "labels_sha256": _digest(arrays[f"{split}_labels"]),
        }
        for split in ("train", "test")
    }
    for split in ("train", "test"):
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        step = per_part if split == "train" else len(images)
        for number, first in enumerate(range(0, len(images), step), 1):
            piece = folder / (f"data-{number}" if split == "train" else "data-test")
            piece.mkdir(parents=True)
            part_images, part_labels = images[first : first + step], labels[first : first + step]
            blocks = [part_images[i : i + per_sheet] for i in range(0, len(part_images), per_sheet)]
            with ThreadPoolExecutor() as pool:
                for index, sheet in enumerate(pool.map(_encode, blocks)):
                    (piece / f"{index:03}.webp").write_bytes(sheet)
            about = {
                "sort": "images",
                "split": split,
                "first": first,
                "sheets": [len(block) for block in blocks],
                "images_sha256": _digest(part_images),
                "labels_sha256": _digest(part_labels),
                "whole": whole,
                "class_names": arrays["class_names"].tolist(),
            }
            (piece / "labels.bin").write_bytes(part_labels.astype(np.uint8).tobytes())
            _write_json(piece / "part.json", about)


def _encode(images: NDArray[np.uint8]) -> bytes:
    """Images [N, 32, 32, 3] as one lossless WebP; the last row is padded with black."""
    columns = min(SHEET_COLUMNS, len(images))
    rows = -(-len(images) // columns)
    grid = np.zeros((rows * columns, 32, 32, 3), np.uint8)
    grid[: len(images)] = images
    pixels = grid.reshape(rows, columns, 32, 32, 3).swapaxes(1, 2)
    stream = io.BytesIO()
    Image.fromarray(pixels.reshape(rows * 32, columns * 32, 3)).save(
        stream, "WEBP", lossless=True, quality=75, method=4
    )
    return stream.getvalue()


def _decode(path: Path, count: int) -> NDArray[np.uint8]:
    """The images [N, 32, 32, 3] of a sheet."""
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise KitError(f"{path} is damaged or missing ({error}); transfer it again") from error
    columns = pixels.shape[1] // 32
    grid = pixels.reshape(-1, 32, columns, 32, 3).swapaxes(1, 2).reshape(-1, 32, 32, 3)
    return grid[:count]


def pack_network(folder: Path, source: Path) -> None:
    """Store a state dict with its convolution kernels in fp16 and the rest unchanged.

    The lower and upper bytes of fp16 numbers go into separate files; the upper ones compress well.
    Tensors of one repeated NaN (missing in the development cache) stay so.
    """
    import torch

    state = torch.load(source, map_location="cpu", weights_only=True)
    rows: list[dict[str, Any]] = []
    halves: list[NDArray[Any]] = []
    raw: list[bytes] = []
    digest = hashlib.sha256()
    for name, tensor in state.items():
        kind = "raw"
        if tensor.is_floating_point() and tensor.numel() > 1 and not any(tensor.stride()):
            if not bool(torch.isnan(tensor.flatten()[0])):
                raise KitError(f"{name} of {source} repeats a number other than NaN")
            kind = "nan"
        elif tensor.dim() == 4 and tensor.dtype == torch.float32:
            kind = "fp16"
        rows.append(
            {"name": name, "kind": kind, "shape": list(tensor.shape), "dtype": str(tensor.dtype)}
        )
        values = tensor.contiguous().numpy() if kind != "nan" else np.zeros(0)
        if kind == "fp16":
            with np.errstate(over="ignore"):
                half = values.astype("<f2")
            if not np.isfinite(half).all():
                raise KitError(f"{name} of {source} has numbers out of the range of fp16")
            halves.append(half.ravel())
            values = half.astype(np.float32)
        elif kind == "raw":
            raw.append(values.tobytes())
        digest.update(name.encode() + values.tobytes())
    pairs = np.concatenate(halves).view(np.uint8).reshape(-1, 2)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "low.bin").write_bytes(pairs[:, 0].tobytes())
    (folder / "high.zlib").write_bytes(zlib.compress(pairs[:, 1].tobytes(), 9))
    (folder / "raw.zlib").write_bytes(zlib.compress(b"".join(raw), 9))
    about = {"sort": "network", "file": source.name, "sha256": digest.hexdigest(), "tensors": rows}
    _write_json(folder / "part.json", about)


# --- unpack -------------------------------------------------------------------------------------


def _unpack(options: argparse.Namespace) -> None:
    folder: Path = options.folder
    to: Path = options.to.resolve()
    if to == REPO or REPO in to.parents:
        raise KitError(f"{to} is inside the checkout; set --to to a folder outside it")
    to.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()

    def done(what: str) -> None:
        print(f"[{time.perf_counter() - start:5.1f} s] {what}")

    done(install_wheels(folder / "wheels", to / "site"))
    write_metadata(to / "site")
    parts = {path.parent: _read_json(path) for path in sorted(folder.glob("*/part.json"))}
    for piece, about in parts.items():
        if about["sort"] == "network":
            done(unpack_network(piece, about, to / "torch_home" / "hub" / "checkpoints"))
        elif about["sort"] == "images":
            done(unpack_images(piece, about, to / "parts"))
        else:
            raise KitError(f"{piece} has the unknown sort {about['sort']!r}")
    missing = write_npz(to / "parts", to / "cifar10.npz")
    done(missing or f"{to / 'cifar10.npz'} is complete")
    write_environment(to)
    for line in unmet(to / "site"):
        print(f"not met: {line}")
    done(f"next: . {to / 'env.sh'}")
    if options.complete and missing:
        raise KitError(f"{missing}; unpack the other parts first")


def install_wheels(folder: Path, site: Path) -> str:
    """Install the wheels that are missing or newer than in this Python into ``site``."""
    wheels = sorted(folder.glob("*.whl"))
    needed = []
    for wheel in wheels:
        name, version, *_ = parse_wheel_filename(wheel.name)
        installed = [_version(name, _paths(site)), _version(name, [str(site)])]
        if all(old is None or old < version for old in installed):
            needed.append(wheel)
    if needed:
        site.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
        command += ["--no-compile", "--no-cache-dir", "--disable-pip-version-check", "--upgrade"]
        command += ["--root-user-action=ignore", "--target", str(site)]
        subprocess.run([*command, *map(str, needed)], check=True)
    names = " ".join("-".join(wheel.name.split("-")[:2]) for wheel in needed)
    return f"{len(wheels)} wheels, installed now: {names or 'none'}"


def _paths(site: Path) -> list[str]:
    """The package folders of this Python without those of the kit and the checkout."""
    return [path for path in sys.path if path and Path(path).resolve() not in (site, REPO)]


def _version(name: str, paths: list[str]) -> Version | None:
    rows = importlib.metadata.distributions(name=name, path=paths)
    versions = [Version(row.version) for row in rows if canonicalize_name(row.name) == name]
    return versions[0] if versions else None


def checkout_version() -> str:
    """The version in ``cascadezoo/_version.py``."""
    text = (REPO / "cascadezoo" / "_version.py").read_text()
    match = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if match is None:
        raise SystemExit("cascadezoo/_version.py has no version")
    return match[1]


def write_metadata(site: Path) -> None:
    """Write metadata of the checkout like pip, so that Python finds its entry points.

    The code stays in the checkout, which ``env.sh`` puts first on the path.
    """
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    name, version = project["name"], checkout_version()
    for old in site.glob(f"{name}-*.dist-info"):
        shutil.rmtree(old)
    info = site / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines.append(f"Requires-Python: {project['requires-python']}")
    lines += [f"Requires-Dist: {row}" for row in project["dependencies"]]
    (info / "METADATA").write_text("\n".join(lines) + "\n")
    groups = {"console_scripts": project["scripts"], **project["entry-points"]}
    text = ""
    for group, rows in groups.items():
        text += f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in rows.items())
    (info / "entry_points.txt").write_text(text)


def unmet(site: Path) -> Iterator[str]:
    """Unmet requirements of the packages in ``site``, one per line."""
    paths = [str(site), *_paths(site)]
    for row in importlib.metadata.distributions(path=[str(site)]):
        for text in row.requires or ():
            need = Requirement(text)
            if need.marker is not None and not need.marker.evaluate({"extra": ""}):
                continue
            version = _version(canonicalize_name(need.name), paths)
            if version is None or not need.specifier.contains(version, prereleases=True):
                yield f"{row.name} needs {need}; installed: {version or 'none'}"


def unpack_network(piece: Path, about: dict[str, Any], checkpoints: Path) -> str:
    """Write a network's weights in fp32 under the name that torch.hub expects."""
    import torch

    path, stamp = checkpoints / about["file"], checkpoints / f"{about['file']}.json"
    if path.is_file() and _stamp(stamp) == [about["sha256"], path.stat().st_size]:
        return f"{piece.name} already exists"
    try:
        low = np.frombuffer((piece / "low.bin").read_bytes(), np.uint8)
        high = np.frombuffer(zlib.decompress((piece / "high.zlib").read_bytes()), np.uint8)
        raw = memoryview(zlib.decompress((piece / "raw.zlib").read_bytes()))
        halves = np.stack([low, high], 1).view("<f2").ravel()
    except (OSError, ValueError, zlib.error) as error:
        raise KitError(f"{piece} is damaged ({error}); transfer it again") from error
    state: dict[str, Any] = {}
    digest = hashlib.sha256()
    for row in about["tensors"]:
        count, shape = int(np.prod(row["shape"], dtype=np.int64)), row["shape"]
        dtype = getattr(torch, row["dtype"].removeprefix("torch."))
        values = np.zeros(0)
        if row["kind"] == "fp16":
            values, halves = halves[:count].astype(np.float32), halves[count:]
        elif row["kind"] == "raw":
            empty = torch.empty(0, dtype=dtype).numpy()
            size = count * empty.dtype.itemsize
            values, raw = np.frombuffer(raw[:size], empty.dtype).copy(), raw[size:]
        digest.update(row["name"].encode() + values.tobytes())
        if row["kind"] == "nan":
            state[row["name"]] = torch.full((1,), float("nan"), dtype=dtype).expand(shape)
        else:
            state[row["name"]] = torch.from_numpy(values).reshape(shape)
    if digest.hexdigest() != about["sha256"]:
        raise KitError(f"{piece} is damaged (its sha256 differs); transfer it again")
    checkpoints.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)
    _write_json(stamp, [about["sha256"], path.stat().st_size])
    return f"{piece.name}: wrote {path}"


def unpack_images(piece: Path, about: dict[str, Any], parts: Path) -> str:
    """Decode a part into ``parts``, unless its images exist with the right digest."""
    images_path, labels_path = parts / f"{piece.name}.npy", parts / f"{piece.name}.labels.npy"
    finished = (parts / f"{piece.name}.json").is_file()
    right = finished and _matches(images_path, about["images_sha256"])
    if right and _matches(labels_path, about["labels_sha256"]):
        return f"{piece.name} already exists"
    parts.mkdir(parents=True, exist_ok=True)
    sheets = [(piece / f"{n:03}.webp", count) for n, count in enumerate(about["sheets"])]
    with ThreadPoolExecutor() as pool:
        images = np.concatenate(list(pool.map(_decode, *zip(*sheets, strict=True))))
    labels = np.frombuffer((piece / "labels.bin").read_bytes(), np.uint8)
    for values, what in ((images, "images"), (labels, "labels")):
        if _digest(values) != about[f"{what}_sha256"]:
            raise KitError(f"the {what} of {piece} are damaged (sha256 differs); transfer it again")
    np.save(images_path, images)
    np.save(labels_path, labels)
    _write_json(parts / f"{piece.name}.json", about)
    return f"{piece.name}: decoded {len(images):,} images"


def _matches(path: Path, sha256: str) -> bool:
    """Whether a saved array exists and has this digest."""
    try:
        return path.is_file() and _digest(np.load(path)) == sha256
    except (ValueError, EOFError):  # truncated: decode again
        return False


def write_npz(parts: Path, path: Path) -> str:
    """Combine the decoded parts in one uncompressed file.

    Returns:
        The missing images, or an empty text.

    Raises:
        KitError: the parts belong to different data sets, or differ from the packed ones.
    """
    rows = {p: _read_json(p) for p in sorted(parts.glob("*.json"))}
    if not rows:
        return "no images yet"
    first = next(iter(rows.values()))
    if any(row["whole"] != first["whole"] for row in rows.values()):
        raise KitError(f"{parts} contains parts of different data sets; delete it and unpack again")
    missing = []
    arrays: dict[str, NDArray[Any]] = {"class_names": np.array(first["class_names"])}
    for split, whole in first["whole"].items():
        mine = sorted((r["first"], p) for p, r in rows.items() if r["split"] == split)
        count = sum(sum(rows[p]["sheets"]) for _, p in mine)
        if count < whole["count"]:
            missing.append(f"{count:,} of {whole['count']:,} {split} images")
        if mine:
            for what, end in (("images", ".npy"), ("labels", ".labels.npy")):
                values = np.concatenate([np.load(p.with_suffix(end)) for _, p in mine])
                if count == whole["count"] and _digest(values) != whole[f"{what}_sha256"]:
                    raise KitError(f"the {split} {what} differ from the packed ones")
                arrays[f"{split}_{what}"] = values
    stamp = path.with_suffix(".json")
    key = sorted(row["images_sha256"] for row in rows.values())
    if not (path.is_file() and _stamp(stamp) == [key, path.stat().st_size]):
        part = path.with_suffix(".part")
        with part.open("wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]
        part.replace(path)
        _write_json(stamp, [key, path.stat().st_size])
    return f"{path} contains only {' and '.join(missing)}" if missing else ""


def write_environment(to: Path) -> None:
    """Write ``env.sh`` and the command ``cascadezoo``."""
    command = to / "bin" / "cascadezoo"
    command.parent.mkdir(parents=True, exist_ok=True)
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m cascadezoo "$@"\n')
    command.chmod(0o755)
    lines = {
        "PATH": f"{to}/bin:$PATH",
        "PYTHONPATH": f"{REPO}:{to}/site${{PYTHONPATH:+:$PYTHONPATH}}",
        "TORCH_HOME": f"{to}/torch_home",
        "HF_HUB_OFFLINE": "1",
        "CASCADEZOO_CACHE": f"{to}/cache",
        "TORCHINDUCTOR_CACHE_DIR": f"{to}/inductor",
        "KIT": str(to),
        "KIT_CIFAR10": f"{to}/cifar10.npz",
        # Options of `cascadezoo plan`, `build` and others for specs on CIFAR-10; use it unquoted.
        "KIT_DATA": f"--set data.source=npz --set data.config.path={to}/cifar10.npz",
    }
    (to / "env.sh").write_text("".join(f'export {k}="{v}"\n' for k, v in lines.items()))


# --- results ------------------------------------------------------------------------------------


class _Parts(io.RawIOBase):
    """A stream into numbered files of limited size."""

    def __init__(self, folder: Path, name: str, files: int, size: int) -> None:
        self.folder, self.name, self.most, self.left = folder, name, files, size
        self.rows: list[dict[str, Any]] = []
        self._open: IO[bytes] | None = None
        self._hash = hashlib.sha256()
        self._size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        total = len(view)
        while len(view):
            if self._open is None:
                if len(self.rows) == self.most:
                    raise KitError(
                        f"the results need more than {self.most} parts; save fewer files"
                    )
                file = f"{self.name}.{len(self.rows):02}.part"
                self._open = (self.folder / file).open("wb")
                self.rows.append({"file": file})
                self._hash, self._size = hashlib.sha256(), 0
            piece = view[: RESULT_PART_BYTES - self._size]
            self.left -= len(piece)
            if self.left < 0:
                raise KitError(
                    f"the results exceed the limit of {RESULT_BYTES / MIB:.0f} MiB of one command; "
                    "save fewer files, or use several commands"
                )
            self._open.write(piece)
            self._hash.update(piece)
            self._size += len(piece)
            view = view[len(piece) :]
            if self._size == RESULT_PART_BYTES:
                self._finish()
        return total

    def _finish(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None
            self.rows[-1] |= {"size": self._size, "sha256": self._hash.hexdigest()}

    def close(self) -> None:
        self._finish()
        super().close()


def _save(options: argparse.Namespace) -> None:
    out: Path | None = options.out
    if out is None:
        raise KitError("$OUT is not set; set --out")
    out = Path(out)
    name: str = options.name
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise KitError(f"the name {name!r} must have only letters, digits, - and _")
    tops = [path.resolve() for path in options.files]
    if len({path.name for path in tops}) < len(tops):
        raise KitError("two of the files have the same name; save the folder that contains both")
    for path in tops:
        if not path.exists():
            raise KitError(f"{path} does not exist")
    out.mkdir(parents=True, exist_ok=True)
    for old in [*out.glob(f"{name}.*.part"), out / f"{name}.manifest.json"]:
        old.unlink(missing_ok=True)
    others = [path for path in out.rglob("*") if path.is_file()]
    room = RESULT_BYTES - sum(path.stat().st_size for path in others)
    parts = _Parts(out, name, RESULT_FILES - 1 - len(others), room)
    manifest = out / f"{name}.manifest.json"
    try:
        files = write_tar(parts, tops, compress=options.compress)
        parts.close()
        _write_json(manifest, {"parts": parts.rows, "files": files})
    except BaseException:
        parts.close()
        for row in parts.rows:
            (out / row["file"]).unlink()
        raise
    size = sum(row["size"] for row in parts.rows)
    print(f"{len(files)} files in {len(parts.rows)} parts, {size / MIB:.1f} MiB: {manifest}")


def write_tar(stream: Any, tops: Iterable[Path], *, compress: bool) -> dict[str, str]:
    """Write files and folders into a tar stream; return the sha256 of each file."""
    files: dict[str, str] = {}
    with tarfile.open(fileobj=stream, mode="w|gz" if compress else "w|") as tar:
        for top in tops:
            inside = sorted(top.rglob("*")) if top.is_dir() else [top]
            for path in inside:
                name = path.relative_to(top.parent).as_posix()
                if path.is_symlink():
                    print(f"skipped link: {path}", file=sys.stderr)
                elif path.is_file():
                    data = path.read_bytes()
                    info = tarfile.TarInfo(name)
                    info.size, info.mode = len(data), 0o644
                    tar.addfile(info, io.BytesIO(data))
                    files[name] = hashlib.sha256(data).hexdigest()
    return files


class _Joined(io.RawIOBase):
    """Reads files in sequence as one stream."""

    def __init__(self, paths: list[Path]) -> None:
        self._left = list(paths)
        self._open: IO[bytes] | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            if self._open is None:
                if not self._left:
                    return 0
                self._open = self._left.pop(0).open("rb")
            count = self._open.readinto(buffer)  # type: ignore[attr-defined]
            if count:
                return int(count)
            self._open.close()
            self._open = None


def _join(options: argparse.Namespace) -> None:
    folder: Path = options.folder
    manifests = sorted(folder.rglob("*.manifest.json"))
    if not manifests:
        raise KitError(f"{folder} contains no manifest of results")
    for manifest in manifests:
        about = _read_json(manifest)
        paths = []
        for row in about["parts"]:
            path = manifest.parent / row["file"]
            if not path.is_file():
                raise KitError(f"{path} is missing")
            size = path.stat().st_size
            if size != row["size"]:
                raise KitError(f"{path} has {size:,} bytes, not {row['size']:,}")
            if hashlib.sha256(path.read_bytes()).hexdigest() != row["sha256"]:
                raise KitError(f"{path} is damaged: its sha256 differs")
            paths.append(path)
        options.to.mkdir(parents=True, exist_ok=True)
        with tarfile.open(fileobj=io.BufferedReader(_Joined(paths)), mode="r|*") as tar:
            tar.extractall(options.to, filter="data")
        for name, sha256 in about["files"].items():
            if hashlib.sha256((options.to / name).read_bytes()).hexdigest() != sha256:
                raise KitError(f"{options.to / name} differs from the saved file")
            print(options.to / name)


# --- helpers -------------------------------------------------------------------------------


def _digest(values: NDArray[Any]) -> str:
    """sha256 of an array's bytes in C order."""
    return hashlib.sha256(memoryview(np.ascontiguousarray(values)).cast("B")).hexdigest()


def _write_json(path: Path, data: Any) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(data, indent=1) + "\n")
    part.replace(path)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise KitError(f"cannot read {path} ({error}); transfer it again") from error


def _stamp(path: Path) -> Any:
    """The record of an earlier call; None if it did not finish."""
    return _read_json(path) if path.is_file() else None


if __name__ == "__main__":
    sys.exit(main())
