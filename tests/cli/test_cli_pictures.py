"""The commands on pictures, and ``sample --like``."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from errors_help import check_failed
from PIL import Image

from cascadezoo import Cascade, read_recipe
from cascadezoo.cli.picture_files import output_paths

MODEL = "shapes-tiny"


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)).save(path)
    return path


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_upscale_one_file(invoke, photo):
    result = invoke("upscale", photo, "-o", "large.png", "--model", MODEL, "--seed", 3)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"upscaled {photo} to large.png (60x40)\n"
    (expected,) = Cascade.from_pretrained(MODEL).upscale(photo, seed=3)
    assert (pixels("large.png") == np.asarray(expected)).all()
    recipe = read_recipe("large.png")
    assert (recipe.command, recipe.reference, recipe.seed) == ("upscale", "zoo:shapes-tiny", 3)
    assert str(photo).encode() not in Path("large.png").read_bytes()


def test_progress_and_precision(invoke, photo):
    """Progress is on standard error; bf16 gives nearly the pictures of fp32, and is recorded."""
    commands = {
        "upscale": ["upscale", photo, "-m", MODEL],
        "refine": ["refine", photo, "-m", MODEL],
        "edit": ["edit", MODEL, photo, "--strength", 0.3, "--steps", 3],
        "interpolate": ["interpolate", MODEL, "--to-seed", 1, "-n", 2, "--steps", 3],
    }
    Image.fromarray(pixels(photo)[:20, :20]).resize((32, 32)).save(photo)
    for name, command in commands.items():
        whole = invoke(*command, "-o", f"{name}.png")
        half = invoke(*command, "-o", f"{name}-16.png", "--precision", "bf16", "-q")
        assert (whole.exit_code, half.exit_code) == (0, 0), half.stderr
        assert whole.stderr.count("\n") == 1
        assert half.stderr == ""
        assert read_recipe(f"{name}-16.png").settings["precision"] == "bf16"
        assert "precision" not in read_recipe(f"{name}.png").settings
        full, rounded = (pixels(f"{name}{end}.png").astype(int) for end in ("", "-16"))
        assert 0 < np.abs(full - rounded).mean() < 6
    check_failed(
        invoke(*commands["upscale"], "-o", "x.png", "--precision", "fp16", "--device", "cpu"),
        "sample-fp16-on-cpu",
    )
    assert not Path("x.png").exists()


def test_several_files_as_json(invoke, photo, tmp_path):
    Image.new("L", (9, 5)).save("grey.jpg")
    args = ["-m", MODEL, "--stage", "up", "--json"]
    result = invoke("upscale", photo, "grey.jpg", "-o", "out/", *args)
    assert result.exit_code == 0, result.stderr
    data = json.loads(result.stdout)
    assert (data["model"], data["seed"]) == (MODEL, 0)
    assert data["results"][1] == {
        "input": "grey.jpg",
        "output": str(Path("out") / "grey.png"),
        "width": 18,
        "height": 10,
    }
    result = invoke("refine", photo, "-o", "sharp.png", "-m", MODEL)
    assert result.exit_code == 0, result.stderr
    assert pixels("sharp.png").shape == (20, 30, 3)


def test_no_file_is_replaced_silently(invoke, photo, tmp_path):
    before = photo.read_bytes()
    for out in (photo, "./photo.png", str(tmp_path) + os.sep):
        result = invoke("upscale", photo, "-o", out, "-m", MODEL)
        check_failed(result, "input-result-exists", shown="--force")
    (tmp_path / "linked.png").symlink_to(photo)
    check_failed(invoke("upscale", photo, "-o", "linked.png", "-m", MODEL), "input-result-exists")
    assert photo.read_bytes() == before
    assert invoke("upscale", photo, "-o", photo, "-m", MODEL, "--force").exit_code == 0
    assert photo.read_bytes() != before


def test_wrong_outputs_and_models(invoke, photo, tmp_path):
    check_failed(invoke("upscale", photo, "-o", "a.png"), "input-no-model", shown="--model")
    many = ["upscale", photo, photo, "-m", MODEL]
    check_failed(invoke(*many, "-o", "a.png"), "input-result-count", n=2)
    check_failed(invoke(*many, "-o", "out/"), "input-output-twice")
    check_failed(invoke("upscale", photo, "-o", "a.jpg", "-m", MODEL), "input-result-suffix")
    (tmp_path / "bad.png").write_bytes(b"no")
    bad = invoke("upscale", "bad.png", "-o", "a.png", "-m", MODEL)
    check_failed(bad, "data-image-unreadable", path="bad.png")
    assert bad.exit_code == 2
    folder = invoke("upscale", tmp_path, "-o", "a.png", "-m", MODEL)
    check_failed(folder, "data-image-folder", shown="/*.png")
    missing = invoke("upscale", "phoot.png", "-o", "a.png", "-m", MODEL)
    check_failed(missing, "data-file-missing", shown="spelling")
    check_failed(invoke("upscale", photo, "-o", "a.png", "-m", "nobody"), "reference-not-found")
    unknown = invoke("upscale", photo, "-o", "a.png", "-m", MODEL, "--stage", "refine", "--json")
    assert json.loads(unknown.stderr)["error"]["code"] == "sample-picture-stage"
    assert not (tmp_path / "a.png").exists()


def test_a_row_of_very_many_images_is_refused_before_sampling(invoke, tmp_path):
    result = invoke("interpolate", MODEL, "--to-seed", 1, "-n", 100_000, "-o", "row.png")
    check_failed(result, "input-picture-too-large", n=100_000)
    assert result.exit_code == 2
    assert not (tmp_path / "row.png").exists()


def test_the_names_of_very_many_results_are_checked_at_once():
    names = [f"photo-{i}" for i in range(100_000)]
    began = time.process_time()
    assert len(output_paths("new/", ["photo.png"], names, force=True)) == len(names)
    assert time.process_time() - began < 20, "a comparison of all pairs takes minutes"


def test_edit_inpaint_and_interpolate(invoke, tmp_path):
    fast = ["--steps", 3]
    assert invoke("sample", MODEL, "-n", 1, "-o", "in/", "-q", *fast).exit_code == 0
    picture = "in/000000.png"
    result = invoke("edit", MODEL, picture, "-o", "same.png", "--strength", 0)
    assert result.exit_code == 0, result.stderr
    assert (pixels("same.png") == pixels(picture)).all()
    result = invoke("edit", MODEL, picture, "-o", "v/", "-n", 2, "--label", "star", "--json", *fast)
    assert result.exit_code == 0, result.stderr
    assert [r["output"] for r in json.loads(result.stdout)["results"]] == [
        str(Path("v") / f"000000-{i}.png") for i in range(2)
    ]
    assert read_recipe("v/000000-1.png").settings["label"] == 3
    mask = Image.new("1", (32, 32))
    mask.paste(1, (16, 0, 32, 32))
    mask.save("mask.png")
    args = ["--mask", "mask.png", "-o", "new.png", "--resamplings", 1, *fast]
    result = invoke("inpaint", MODEL, picture, *args)
    assert result.exit_code == 0, result.stderr
    assert (pixels("new.png")[:, :16] == pixels(picture)[:, :16]).all()
    check_failed(
        invoke("inpaint", MODEL, picture, "--mask", "mask.png", "-o", "mask.png"),
        "input-result-exists",
    )

    result = invoke(
        "interpolate", MODEL, "--to-seed", 1, "--label", "triangle", "-n", 3, "-o", "f/", *fast
    )
    assert result.exit_code == 0, result.stderr
    assert (
        invoke("sample", MODEL, "-n", 1, "--label", 2, "--seed", 1, "-o", "end/", *fast).exit_code
        == 0
    )
    end, last = pixels("end/000000.png").astype(int), pixels("f/000002.png")
    assert np.abs(end - last).max() <= 1
    assert (
        invoke("interpolate", MODEL, "--to-seed", 1, "-n", 2, "-o", "row.png", *fast).exit_code == 0
    )
    check_failed(invoke("interpolate", MODEL, "-o", "f.png"), "usage", shown="--to-seed")


@pytest.mark.parametrize(
    ("out", "args"),
    [
        ("grid.png", ["-n", 3, "--seed", 4, "--label", "cross", "--label", 2, "--guidance", "1.5"]),
        ("strip.png", ["-n", 2, "--stages", "--guidance-interval", "0.1,0.9"]),
        ("course.png", ["-n", 2, "--trajectory", "--stage", "coarse"]),
        ("folder/000003.png", ["-n", 5, "--batch-size", 2, "--negative-label", "square"]),
        ("half.png", ["-n", 2, "--precision", "bf16"]),
    ],
)
def test_like_repeats_a_picture(invoke, tmp_path, out, args):
    folder = out.startswith("folder")
    where = "folder/" if folder else out
    result = invoke("sample", MODEL, "-o", where, "-q", "--steps", "coarse=3", *args)
    assert result.exit_code == 0, result.stderr
    result = invoke("sample", "--like", out, "-o", "again.png", "-q")
    assert result.exit_code == 0, result.stderr
    assert (pixels("again.png") == pixels(out)).all()
    assert read_recipe("again.png") == read_recipe(out)


def test_like_with_a_local_model(invoke, model, tmp_path):
    assert invoke("sample", model, "-n", 2, "-o", "a.png", "-q").exit_code == 0
    assert read_recipe("a.png").reference is None
    check_failed(invoke("sample", "--like", "a.png", "-o", "b.png"), "reference-not-in-picture")
    assert invoke("sample", model, "--like", "a.png", "-o", "b.png", "-q").exit_code == 0
    assert (pixels("a.png") == pixels("b.png")).all()
    wrong = invoke("sample", MODEL, "--like", "a.png", "-o", "c.png")
    check_failed(wrong, "model-not-of-picture", path="a.png")
    check_failed(invoke("sample", "--like", "a.png", "--seed", 3), "usage", shown="--seed")
    check_failed(invoke("sample"), "usage", shown="--like")
    check_failed(invoke("sample", model, "--yes"), "usage", shown="--like")
    assert not (tmp_path / "c.png").exists()


def test_a_picture_from_elsewhere_opens_and_fetches_nothing(invoke, tmp_path):
    assert invoke("sample", MODEL, "-n", 1, "-o", "a.png", "-q", "--steps", 2).exit_code == 0
    recipe = read_recipe("a.png")
    opened: list[str] = []
    active = True

    def hook(event, args):
        if active and event in ("socket.connect", "socket.getaddrinfo"):
            opened.append(event)

    sys.addaudithook(hook)
    try:
        for change, code in (
            ({"reference": f"hf://org/name@{'0' * 40}"}, "reference-unconfirmed"),
            ({"reference": "zoo:no-such-model"}, "lookup-zoo-model"),
            ({"digest": "0" * 64}, "model-not-of-picture"),
            ({"command": "upscale"}, "input-recipe-command"),
            ({"settings": {"n": 3, "index": 3}}, "input-recipe-invalid"),
            ({"settings": {"n": 3, "index": 1, "batch_size": 2}}, "input-recipe-invalid"),
        ):
            Image.new("RGB", (2, 2)).save(
                "evil.png", pnginfo=recipe.model_copy(update=change).png_info()
            )
            check_failed(invoke("sample", "--like", "evil.png", "-o", "b.png"), code)
    finally:
        active = False
    assert opened == []
    assert not (tmp_path / "b.png").exists()
