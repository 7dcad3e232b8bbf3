from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from errors_help import check_failed
from PIL import Image

from cascadezoo import Cascade


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def images_of(model, n, **options):
    """Samples of the library, as bytes [n, H, W, C]."""
    images = Cascade.from_pretrained(model).sample(n, **options)
    return ((images.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def test_a_grid_by_default(invoke, model, tmp_path):
    result = invoke("sample", model)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("wrote 16 images of 3x8x8 to lone-seed0.png (")
    assert "sampling 16 images" in result.stderr
    with Image.open(tmp_path / "lone-seed0.png") as picture:
        assert (picture.format, picture.mode) == ("PNG", "RGB")
        pixels = np.asarray(picture)
    assert pixels.shape == (4 * 98 + 2, 4 * 98 + 2, 3)
    # The first image of the grid, each of its pixels drawn 12 wide.
    first = pixels[2:98:12, 2:98:12]
    assert (first == images_of(model, 16)[0]).all()


def test_quiet_and_json(invoke, model):
    result = invoke("sample", model, "-n", 3, "--seed", 7, "--quiet", "--json")
    assert result.stderr == ""
    data = json.loads(result.stdout)
    assert data["output"] == "lone-seed7.png"
    assert (data["n"], data["seed"], data["size"], data["channels"]) == (3, 7, 8, 3)
    assert (data["model"], data["format"]) == ("lone", "grid")


def test_npz_contains_the_images_and_labels_of_the_library(invoke, model):
    result = invoke("sample", model, "-n", 21, "--seed", 3, "--batch-size", 8, "-o", "a.npz")
    assert result.exit_code == 0, result.stderr
    with np.load("a.npz") as rows:
        assert set(rows.files) == {"arr_0", "arr_1", "class_names"}
        images, labels = rows["arr_0"], rows["arr_1"]
        assert rows["class_names"].tolist()[:4] == ["circle", "square", "triangle", "star"]
    assert (images.dtype, images.shape) == (np.uint8, (21, 8, 8, 3))
    assert labels.tolist() == [i % 8 for i in range(21)]
    expected = images_of(model, 21, seed=3)
    assert np.abs(images.astype(int) - expected.astype(int)).max() <= 1


def test_labels_cycle_across_batches(invoke, model):
    args = ["-n", 7, "--label", 5, "--label", 1, "--label", 2, "--batch-size", 2, "-o", "l.npz"]
    assert invoke("sample", model, *args).exit_code == 0
    with np.load("l.npz") as rows:
        assert rows["arr_1"].tolist() == [5, 1, 2, 5, 1, 2, 5]
        expected = images_of(model, 7, labels=[5, 1, 2, 5, 1, 2, 5])
        assert np.abs(rows["arr_0"].astype(int) - expected).max() <= 1


def test_folder_of_numbered_files(invoke, model, tmp_path):
    assert invoke("sample", model, "-n", 5, "-o", "out/deep/").exit_code == 0
    files = sorted((tmp_path / "out" / "deep").iterdir())
    assert [f.name for f in files] == [f"{i:06}.png" for i in range(5)]
    expected = images_of(model, 5)
    for file, image in zip(files, expected, strict=True):
        with Image.open(file) as picture:
            assert (np.asarray(picture) == image).all()


def test_files_in_a_folder_are_replaced_only_with_force(invoke, model, tmp_path):
    out = tmp_path / "out"
    assert invoke("sample", model, "-n", 2, "-o", "out/").exit_code == 0
    (out / "notes.txt").write_text("mine")
    before = (out / "000000.png").read_bytes()
    result = invoke("sample", model, "-n", 2, "--seed", 1, "-o", "out")
    assert result.exit_code == 2
    check_failed(result, "input-output-exists", path="out", shown="--force")
    assert "000000.png" in result.stderr
    assert (out / "000000.png").read_bytes() == before
    assert invoke("sample", model, "-n", 2, "--seed", 1, "-o", "out", "--force").exit_code == 0
    assert (out / "000000.png").read_bytes() != before
    assert (out / "notes.txt").read_text() == "mine"


def test_options_reach_the_stages(invoke, model):
    for out, args in {
        "plain.npz": [],
        "steps.npz": ["--steps", "coarse=3"],
        "all.npz": ["--steps", "3"],
        "free.npz": ["--guidance", "0"],
    }.items():
        assert invoke("sample", model, "-n", 2, "-o", out, *args).exit_code == 0
    rows = {name: np.load(f"{name}.npz")["arr_0"] for name in ("plain", "steps", "all", "free")}
    assert (rows["steps"] == rows["all"]).all()
    assert (rows["steps"] != rows["plain"]).any()
    assert (rows["free"] != rows["plain"]).any()


def test_strip_of_the_stages(invoke, tmp_path):
    spec = "diffusion-pixelshuffle-vit-tiny"
    folder = Cascade.from_spec(spec).save_pretrained(tmp_path / "tiny")
    result = invoke("sample", folder, "-n", 3, "--stages")
    assert result.exit_code == 0, result.stderr
    with Image.open(f"{spec}-seed0-stages.png") as picture:
        width, height = picture.size
    names = width - (3 * 96 + 2 * 10 + 2 * 12)
    assert 30 < names < 130, "the classes of the rows"
    assert height > 3 * 96


def test_captions_and_columns_of_a_grid(invoke, model):
    args = ["sample", model, "-n", 4, "--columns", 4, "-q"]
    assert invoke(*args, "-o", "plain.png").exit_code == 0
    result = invoke(*args, "--captions", "-o", "named.png")
    assert result.exit_code == 0, result.stderr
    with Image.open("plain.png") as plain, Image.open("named.png") as named:
        assert named.width == plain.width
        assert named.width == 4 * 98 + 2
        assert 10 < named.height - plain.height < 30
    for out in ("a.npz", "a/"):
        for option in (["--columns", 4], ["--captions"]):
            result = invoke("sample", model, *option, "-o", out)
            check_failed(result, "usage", shown=option[0])
    again = invoke("sample", model, "--like", "named.png", "-o", "again.png", "-q")
    assert again.exit_code == 0, again.stderr
    with Image.open("again.png") as repeated, Image.open("named.png") as named:
        assert (np.asarray(repeated) == np.asarray(named)).all()


REFUSED = {
    "an unknown suffix": (
        ["-o", "a.jpg"],
        {"code": "input-image-suffix", "path": "a.jpg"},
        "DIR/",
    ),
    "a strip in an npz": (
        ["--stages", "-o", "a.npz"],
        {"code": "input-strip-suffix", "path": "a.npz"},
        ".png",
    ),
    "a strip of too many": (
        ["--stages", "-n", "300"],
        {"code": "input-picture-too-large", "n": 300},
        ".npz",
    ),
    "a grid of too many": (
        ["-n", "9000000"],
        {"code": "input-picture-too-large", "n": 9000000},
        ".npz",
    ),
    "inside a file": (
        ["-o", "file/a.png"],
        {"code": "input-output-not-writable", "path": "file/a.png"},
        "-o",
    ),
    "a folder inside a file": (
        ["-o", "file/a/"],
        {"code": "input-output-not-writable", "path": "file/a"},
        "-o",
    ),
    "an npz inside a file": (
        ["-o", "file/a.npz"],
        {"code": "input-output-not-writable", "path": "file/a.npz"},
        "-o",
    ),
    "a folder without permission": (
        ["-o", "/proc/nobody/a.png"],
        {"code": "input-output-not-writable", "path": "/proc/nobody/a.png"},
        "-o",
    ),
    "inside a file named as a picture": (
        ["-o", "dir.png/x.png/y.png"],
        {"code": "input-output-not-writable", "path": "dir.png/x.png/y.png"},
        "-o",
    ),
    "label out of range": (
        ["--label", "8"],
        {"code": "sample-label-out-of-range", "label": 8},
        "7 'crescent'",
    ),
    "no steps": (["--steps", "0"], {"code": "sample-steps-invalid", "steps": 0}, "1 or more"),
    "unknown stage": (
        ["--steps", "up=3"],
        {"code": "sample-option-unheeded-stage", "name": "up", "option": "steps"},
        "coarse",
    ),
    "unknown sampler": (
        ["--sampler", "magic"],
        {"code": "sample-sampler-unknown", "name": "magic"},
        "euler",
    ),
    "guidance that is not a number": (
        ["--guidance", "nan"],
        {"code": "sample-guidance-invalid"},
        "0 or more",
    ),
    "a missing device": (
        ["--device", "cuda:63"],
        {"code": "input-device-missing", "name": "cuda:63"},
        "cpu",
    ),
    "an unknown device": (["--device", "\x1b[1m"], {"code": "input-device-unknown"}, "cpu"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_errors_leave_no_files(case, invoke, model, tmp_path):
    (tmp_path / "file").write_text("a file")
    (tmp_path / "dir.png").write_text("a file too")
    args, error, hint = REFUSED[case]
    result = invoke("sample", model, "-q", *args)
    assert result.exit_code == 2, result.output
    check_failed(result, **error)
    assert hint in result.stderr.split("Hint: ")[1]
    assert result.stdout == ""
    assert "\x1b" not in result.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dir.png", "file"]


def test_a_failed_run_keeps_the_existing_file(invoke, model, tmp_path):
    (tmp_path / "a.npz").write_bytes(b"old")
    assert invoke("sample", model, "-q", "-o", "a.npz", "--label", "99").exit_code == 2
    assert (tmp_path / "a.npz").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]
    assert invoke("sample", model, "-q", "-o", "a.npz", "-n", "1").exit_code == 0
    assert np.load("a.npz")["arr_0"].shape == (1, 8, 8, 3)


@pytest.mark.parametrize(
    ("reference", "error"),
    [
        ("nowhere", {"code": "reference-not-found", "name": "nowhere"}),
        (".", {"code": "reference-no-model", "path": "."}),
        ("hf://org", {"code": "reference-not-a-repo", "name": "org"}),
        ("no\x1bwhere", {"code": "reference-not-found", "shown": "no\\x1bwhere"}),
    ],
)
def test_unknown_models(reference, error, invoke):
    result = invoke("sample", reference)
    assert result.exit_code == 2
    check_failed(result, **error)
    assert "Hint: " in result.stderr
    assert "\x1b" not in result.stderr


def test_output_is_checked_before_the_weights_are_read(invoke, model, tmp_path):
    broken = shutil.copytree(model, tmp_path / "broken")
    (broken / "stages/coarse/model.safetensors").write_bytes(b"rubbish")
    check_failed(invoke("sample", broken, "-o", "/proc/x/a.png"), "input-output-not-writable")
    result = invoke("sample", broken, "-q")
    assert result.exit_code == 2
    check_failed(result, "model-damaged", faults={"stages/coarse/model.safetensors": "size"})
    assert not (tmp_path / "lone-seed0.png").exists()


@pytest.mark.slow
def test_many_images_cost_little_memory(model):
    """The floats of 30,000 images take 23 MB; the file is written batch by batch."""

    def peak(n):
        code = (
            "import sys, torch\n"
            "from cascadezoo.cli.main import main\n"
            "try: main(sys.argv[1:])\n"
            "except SystemExit as end: assert not end.code\n"
            "from cascadezoo.train.memory import peak_memory\n"
            "print(peak_memory(torch.device('cpu'))['process_peak_bytes'])\n"
        )
        args = ["sample", str(model), "-n", str(n), "-q", "-o", f"{n}.npz", "--steps", "1"]
        args += ["--batch-size", "1000"]
        done = subprocess.run(
            [sys.executable, "-c", code, *args],
            capture_output=True,
            text=True,
            check=True,
            # glibc would keep freed batches in its heap.
            env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"},
        )
        return int(done.stdout.split()[-1])

    small, large = peak(2000), peak(30_000)
    assert np.load("30000.npz")["arr_0"].shape == (30_000, 8, 8, 3)
    assert large - small < 12 * 2**20
