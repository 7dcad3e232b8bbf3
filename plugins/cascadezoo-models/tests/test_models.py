import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cascadezoo_models import load, register_zoos

from cascadezoo import Cascade
from cascadezoo.hub.zoo_models import verify
from cascadezoo.zoo.list import bundled_folder, find

NAMES = [model["name"] for model in load()["models"]]

# Means of the channels of the first four images of seed 0, sampled when the models were made.
MEANS = json.loads((Path(__file__).parent / "means.json").read_text())


def test_the_zoo_is_registered():
    (entry,) = register_zoos()
    folder = entry.models_folder()
    assert folder is not None
    assert sorted(path.name for path in folder.iterdir()) == sorted(NAMES) == sorted(MEANS)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_whole_and_what_the_manifest_says(name):
    model = find(name)
    folder = bundled_folder(model)
    assert folder is not None
    assert verify(model) == []
    weights = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    assert weights <= 8_000_000
    assert {"kid.inception.n1000"} <= set(model.metrics)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_draws_what_it_drew(name):
    cascade = Cascade.from_pretrained(name)
    images = cascade.sample(4, seed=0)
    assert images.shape == (4, 3, 32, 32)
    assert all(p.dtype == torch.float32 for p in cascade.parameters())
    torch.testing.assert_close(
        images.mean(dim=(2, 3)), torch.tensor(MEANS[name]), rtol=0, atol=0.02
    )


def test_nothing_writes_into_the_distribution(tmp_path):
    folder = bundled_folder(find(NAMES[0]))
    before = {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    command = [sys.executable, "-m", "cascadezoo", "card", NAMES[0]]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "HF_HUB_OFFLINE": "1"}, check=False
    )
    assert done.returncode == 2
    assert {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()} == before
