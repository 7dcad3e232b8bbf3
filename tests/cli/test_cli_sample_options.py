"""``sample``'s options of diffusion cascades, its trajectories, and ``report --guidance``."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from errors_help import check_failed
from PIL import Image

from cascadezoo import Cascade

UNET = {"channels": 8, "multipliers": [1], "timesteps": 6, "schedule": "cosine", "prediction": "v"}

CDM = {
    "name": "cdm",
    "data": {"source": "shapes", "config": {"size": 16, "count": 64}},
    "stages": [
        {"name": "coarse", "kind": "unet-diffusion.v1", "config": {**UNET, "sampler": "ddim"}},
        {"name": "sr", "kind": "diffusion-sr.v1", "config": UNET},
    ],
    "training": {
        "losses": [],
        "phases": [{"name": "p", "train": ["coarse"], "steps": 1}],
    },
}


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def cdm(tmp_path_factory):
    cascade = Cascade.from_spec(CDM)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in cascade.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=random))
    return cascade.save_pretrained(tmp_path_factory.mktemp("cdm") / "model")


REQUESTS = {
    "s": (["--s", "0.3"], {"options": {"s": 0.3}}),
    "s of a stage": (["--s", "sr=0.3"], {"options": {"s": {"sr": 0.3}}}),
    "truncated": (["--s", "0.3", "--truncated"], {"options": {"s": 0.3, "truncated": True}}),
    "not truncated": (
        ["--s", "0.3", "--no-truncated"],
        {"options": {"s": 0.3, "truncated": False}},
    ),
    "eta": (["--eta", "coarse=1"], {"options": {"eta": {"coarse": 1.0}}}),
    "schedule": (
        ["--sampling-schedule", "coarse=karras"],
        {"options": {"sampling_schedule": {"coarse": "karras"}}},
    ),
    "restart": (["--restart", "coarse=0.9"], {"options": {"restart": {"coarse": 0.9}}}),
    "negative label": (
        ["--guidance", "3", "--negative-label", "2"],
        {"guidance": 3.0, "options": {"negative_label": 2}},
    ),
    "interval": (
        ["--guidance", "3", "--guidance-interval", "0.2,0.8"],
        {"guidance": 3.0, "options": {"guidance_interval": (0.2, 0.8)}},
    ),
}


def test_each_option_has_the_effect_of_the_library(invoke, cdm):
    cascade = Cascade.from_pretrained(cdm)
    images_of = {}
    for name, (args, request) in REQUESTS.items():
        result = invoke("sample", cdm, "-n", 2, "-o", "a.npz", "-q", *args)
        assert result.exit_code == 0, result.stderr
        images = cascade.sample(2, **request)
        expected = ((images.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
        images_of[name] = np.load("a.npz")["arr_0"]
        assert np.abs(images_of[name].astype(int) - expected).max() <= 1
    assert (images_of["s"] == images_of["s of a stage"]).all()
    assert (images_of["s"] == images_of["not truncated"]).all()
    assert (images_of["s"] != images_of["truncated"]).any()
    assert (images_of["negative label"] != images_of["interval"]).any()


def test_precision_loads_and_samples_in_half_precision(invoke, cdm):
    drawn = {}
    for name in ("fp32", "bf16"):
        args = ("-n", 2, "-o", "a.npz", "-q", "--json", "--precision", name)
        result = invoke("sample", cdm, *args)
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout)["precision"] == name
        drawn[name] = np.load("a.npz")["arr_0"].astype(int)
        images = Cascade.from_pretrained(cdm, dtype=name).sample(2)
        expected = ((images.clamp(-1, 1) + 1) * 127.5).round().permute(0, 2, 3, 1).numpy()
        assert np.abs(drawn[name] - expected).max() <= 1
    assert 0 < np.abs(drawn["fp32"] - drawn["bf16"]).mean() < 4


def test_the_choice_of_compilation_is_shown_and_recorded(invoke, cdm):
    result = invoke("sample", cdm, "-n", 2, "-o", "a.npz", "--json", "--compile", "auto")
    assert json.loads(result.stdout)["compiled"] is None
    assert "compiled: nothing (expected to save 0 s" in result.stderr


REFUSED = {
    "a precision that CPUs lack": (
        ["--precision", "fp16", "--device", "cpu"],
        {"code": "sample-fp16-on-cpu"},
        "bf16",
    ),
    "s outside the trained range": (
        ["--s", "0.9"],
        {"code": "sample-s-out-of-range", "value": 0.9},
        "0 to 0.5",
    ),
    "s of the generator": (
        ["--s", "coarse=0.1"],
        {"code": "sample-option-unheeded-stage", "name": "coarse", "option": "s"},
        "sr",
    ),
    "negative label": (
        ["--negative-label", "8"],
        {"code": "sample-label-out-of-range", "label": 8},
        "7 'crescent'",
    ),
    "one number": (
        ["--guidance-interval", "0.5"],
        {"code": "usage", "shown": "'0.5'"},
        "--help",
    ),
    "no numbers": (
        ["--guidance-interval", "a,b"],
        {"code": "usage", "shown": "'a' in 'a,b'"},
        "--help",
    ),
    "interval out of range": (
        ["--guidance-interval", "0,1.5"],
        {"code": "usage", "shown": "1.5"},
        "--help",
    ),
    "steps above T": (
        ["--steps", "7"],
        {"code": "sample-steps-too-many", "steps": 7, "most": 6},
        "1 to 6",
    ),
    "steps that are no number, as an option": (
        ["--option", "steps=nan"],
        {"code": "sample-option-invalid", "option": "steps", "value": "nan"},
        "a whole number",
    ),
    "guidance that is no number, as an option": (
        ["--option", "coarse.guidance=strong"],
        {"code": "sample-option-invalid", "option": "guidance", "value": "strong"},
        "a number",
    ),
    "two pictures": (
        ["--stages", "--trajectory"],
        {"code": "usage", "shown": "--trajectory"},
        "--help",
    ),
    "a stage without a trajectory": (
        ["--stage", "sr"],
        {"code": "usage", "shown": "--stage"},
        "--help",
    ),
    "the trajectory of an unknown stage": (
        ["--trajectory", "--stage", "up"],
        {"code": "sample-stage-unknown", "name": "up"},
        "coarse, sr",
    ),
    "a trajectory in an npz": (
        ["--trajectory", "-o", "a.npz"],
        {"code": "input-strip-suffix", "path": "a.npz"},
        ".png",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case, invoke, cdm, tmp_path):
    args, error, hint = REFUSED[case]
    result = invoke("sample", cdm, "-q", "-n", 2, *args)
    assert result.exit_code == 2, result.output
    check_failed(result, **error)
    assert hint in result.stderr.split("Hint: ")[1]
    assert list(tmp_path.iterdir()) == []


def test_options_that_no_stage_uses(invoke, model):
    result = invoke("sample", model, "-q", "--s", "0.1")
    assert result.exit_code == 2
    check_failed(result, "sample-option-unheeded", option="s")
    assert "guidance" in result.stderr.split("Hint: ")[1]


def test_help_shows_ranges(invoke):
    text = " ".join(invoke("sample", "--help").stdout.split())
    for part in ("0 to the stage's s_max", "0 (none) to 1", "0 to 1000", "1 or more"):
        assert part in text


def test_trajectory_from_noise_to_image_across_batches(invoke, cdm, tmp_path):
    result = invoke("sample", cdm, "-n", 3, "--trajectory", "--batch-size", 2, "-q")
    assert result.exit_code == 0, result.stderr
    with Image.open(tmp_path / "cdm-seed0-trajectory.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    cell, gap = 96, 10
    margin = 12
    columns = (pixels.shape[1] - 2 * margin + gap) // (cell + gap)
    assert columns == 6 + 1  # all steps of the generator, and the final image
    head = pixels.shape[0] - margin - 3 * (cell + 2) + 2
    images = Cascade.from_pretrained(cdm).sample(3, return_stages=True)
    for place, name in ((5, "coarse"), (6, "sr")):
        for row in range(3):
            expected = (
                ((images[name][row, :, 0, 0].clamp(-1, 1) + 1) * 127.5).round().int().tolist()
            )
            # Names of the classes stand left of the columns.
            left = pixels.shape[1] - margin - cell - (6 - place) * (cell + gap)
            actual = pixels[head + row * (cell + 2), left].tolist()
            assert np.abs(np.subtract(actual, expected)).max() <= 1


def test_report_draws_a_row_for_each_scale(invoke, cdm, tmp_path):
    result = invoke("report", cdm, "--guidance", "0,1,3", "--seed", 4, "-q", "--json")
    assert result.exit_code == 0, result.stderr
    data = json.loads(result.stdout)
    assert (data["n"], data["labels"], data["guidance"]) == (8, [*range(8)], [0.0, 1.0, 3.0])
    with Image.open(tmp_path / "guidance.png") as picture:
        pixels = np.asarray(picture)
    cascade, cell = Cascade.from_pretrained(cdm), 98
    left, top = pixels.shape[1] - 12 - 8 * cell + 2, pixels.shape[0] - 12 - 3 * cell + 2
    for row, scale in enumerate((0.0, 1.0, 3.0)):
        images = cascade.sample(8, seed=4, guidance=scale)
        for column in range(8):
            expected = ((images[column, :, 0, 0].clamp(-1, 1) + 1) * 127.5).round().int().tolist()
            actual = pixels[top + row * cell, left + column * cell].tolist()
            assert np.abs(np.subtract(actual, expected)).max() <= 1


@pytest.mark.parametrize(
    ("args", "error"),
    [
        (["--guidance", "1", "a-second-model"], {"code": "input-guidance-one-model", "count": 2}),
        (["--guidance", "1,x"], {"code": "usage", "shown": "'x' in '1,x'"}),
        (["--guidance", "-1"], {"code": "usage", "shown": "-1"}),
        (["--guidance", "1", "--label", "8"], {"code": "sample-label-out-of-range", "label": 8}),
        (["--guidance", "1", "-o", "a.npz"], {"code": "input-grid-suffix", "path": "a.npz"}),
        (
            ["--guidance", "1", "-o", "/proc/x/a.png"],
            {"code": "input-output-not-writable", "path": "/proc/x/a.png"},
        ),
    ],
)
def test_refused_reports(args, error, invoke, cdm, tmp_path):
    result = invoke("report", cdm, "-q", *args)
    assert result.exit_code == 2
    check_failed(result, **error)
    assert list(tmp_path.iterdir()) == []


def test_tune_prints_a_table_or_json(invoke, cdm, tmp_path):
    args = ["--over", "s", "--values", "s=0,0.3", "-n", 20, "-q"]
    result = invoke("tune", cdm, *args, "-o", "t")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.count("best") >= 1
    assert "--values s=" in result.stdout
    assert "--write" in result.stdout.splitlines()[-1]
    result = invoke("tune", cdm, *args, "--json")
    data = json.loads(result.stdout)
    assert [row["setting"]["s"] for row in data["rows"]] == [0.0, 0.3]
    assert (data["folder"], data["written"]) == ("runs/tune-cdm", False)


@pytest.mark.parametrize(
    ("args", "error"),
    [
        ([], {"code": "usage", "shown": "--over"}),
        (["--over", "s", "--values", "s"], {"code": "usage", "shown": "NAME=A,B"}),
        (
            ["--over", "s", "--values", "s=1", "--values", "s=2"],
            {"code": "usage", "shown": "'s'"},
        ),
        (["--over", "magic"], {"code": "input-tune-unknown", "name": "magic"}),
        (["--over", "s", "-n", "5"], {"code": "usage", "shown": "'5'"}),
    ],
)
def test_refused_searches(args, error, invoke, cdm):
    result = invoke("tune", cdm, "-q", *args)
    assert result.exit_code == 2
    check_failed(result, **error)
