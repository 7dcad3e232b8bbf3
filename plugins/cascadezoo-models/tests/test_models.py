import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from cascadezoo_models import load, register_specs, register_zoos
from PIL import Image

from cascadezoo import Cascade, load_spec

MODELS = {model["name"]: model for model in load()["models"]}
(ENTRY,) = register_zoos()
FOLDER = ENTRY.models_folder()

# Means of the channels of the first four images of seed 0, sampled when the models were made.
MEANS = json.loads((Path(__file__).parent / "means.json").read_text())


SHAPES = {
    "cifar10": (3, 32, 32),
    "cifar10-fast": (3, 32, 32),
    "fashion": (1, 28, 28),
    "mnist": (1, 28, 28),
    "upscaler-x2": (3, 32, 32),
}


def cascadezoo(*arguments, cwd):
    command = [sys.executable, "-m", "cascadezoo", *arguments]
    return subprocess.run(command, cwd=cwd, check=False, capture_output=True, text=True)


def test_every_folder_is_listed():
    folders = [path.name for path in FOLDER.iterdir() if path.is_dir()]
    assert sorted(folders) == sorted(MODELS) == sorted(MEANS) == sorted(SHAPES)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_small_and_measured(name):
    weights = [path.stat().st_size for path in (FOLDER / name).rglob("*.safetensors")]
    assert sum(weights) <= 8_000_000
    figure = "psnr." if name == "upscaler-x2" else "kid.inception."
    assert any(measured.startswith(figure) for measured in MODELS[name]["metrics"])


@pytest.mark.parametrize("name", MODELS)
def test_a_model_samples_the_same_images_as_when_it_was_made(name):
    model = Cascade.from_pretrained(name)
    images = model.sample(2, seed=0)
    assert images.shape == (2, *SHAPES[name])
    assert all(p.dtype == torch.float32 for p in model.parameters())
    means = images.mean(dim=(2, 3))
    torch.testing.assert_close(means, torch.tensor(MEANS[name][:2]), rtol=0, atol=0.02)


def test_the_models_agree_with_the_manifest(tmp_path):
    result = cascadezoo("zoo", "verify", "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    verified = {row["name"]: row["faults"] for row in json.loads(result.stdout)["models"]}
    assert not any(verified[name] for name in MODELS)


def test_commands_do_not_write_into_the_distribution(tmp_path):
    name = min(MODELS)
    before = {p: p.read_bytes() for p in sorted((FOLDER / name).rglob("*")) if p.is_file()}
    result = cascadezoo("card", name, cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    after = {p: p.read_bytes() for p in sorted((FOLDER / name).rglob("*")) if p.is_file()}
    assert after == before


def test_the_specs_of_the_models_resolve():
    (group,) = [register_specs()]
    outputs = {
        "mnist": ["1x14x14", "1x28x28"],
        "fashion": ["1x14x14", "1x28x28"],
        "upscaler-x2": ["3x16x16", "3x32x32"],
    }
    assert [entry.name for entry in group] == [*outputs]
    for name, shapes in outputs.items():
        assert [str(stage.output) for stage in load_spec(name).stages] == shapes


@pytest.mark.parametrize("name", ["mnist", "fashion", "upscaler-x2"])
def test_a_model_agrees_with_its_spec(name):
    trained = Cascade.from_pretrained(name).spec
    spec = load_spec(name).spec
    assert [s.kind for s in trained.stages] == [s.kind for s in spec.stages]
    assert [s.config for s in trained.stages] == [s.config for s in spec.stages]
    assert trained.training == spec.training


def test_upscale_without_a_model_is_better_than_bicubic(tmp_path):
    """Discs with sharp edges, averaged down and enlarged again."""
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(128.0), indexing="ij")
    distance = (y - 48).hypot(x - 60)
    disc = torch.stack([((r - distance) / 0.3).sigmoid() * 200 + 20 for r in (20, 30, 40)])
    small = disc.unfold(1, 2, 2).unfold(2, 2, 2).mean((3, 4))
    Image.fromarray(small.round().byte().permute(1, 2, 0).numpy()).save(tmp_path / "small.png")
    result = cascadezoo("upscale", "small.png", "-o", "large.png", "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["model"] == "upscaler-x2"
    with Image.open(tmp_path / "small.png") as picture:
        bicubic = np.asarray(picture.resize((128, 96), Image.Resampling.BICUBIC), np.float32)
    with Image.open(tmp_path / "large.png") as picture:
        ours = np.asarray(picture, np.float32)
    errors = [np.square(made - disc.permute(1, 2, 0).numpy()).mean() for made in (ours, bicubic)]
    assert errors[0] < 0.7 * errors[1], errors
