"""The bundled model: small, complete, and consistent with its spec and its figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cascadezoo.hub.zoo_models import verify
from cascadezoo.model_folder.integrity import check_files
from cascadezoo.model_folder.layout import model_files, read_config
from cascadezoo.spec import load_spec, resolve
from cascadezoo.zoo.entry import bundled_entry
from cascadezoo.zoo.list import bundled_folder, find
from cascadezoo.zoo.manifest import ZooModel, read_manifest

BUNDLED = [model.name for model in read_manifest().models if model.bundled]
PACKAGE = Path(__file__).parents[2] / "cascadezoo"

# Mean of each channel of the first eight images of seed 0 when the model was built.
MEANS = [
    [0.938, 0.590, 0.619],
    [0.958, 0.767, 0.183],
    [0.638, 0.891, 0.913],
    [0.658, 0.742, 0.940],
    [0.946, 0.521, 0.442],
    [0.740, 0.814, 0.949],
    [0.960, 0.708, 0.862],
    [0.983, 0.837, 0.652],
]


@pytest.fixture
def tiny() -> ZooModel:
    return find("shapes-tiny")


@pytest.fixture
def folder(tiny: ZooModel) -> Path:
    path = bundled_folder(tiny)
    assert path is not None
    return path


def test_folders_and_entries_match() -> None:
    folders = [path.name for path in (PACKAGE / "zoo" / "models").iterdir() if path.is_dir()]
    assert sorted(folders) == sorted(BUNDLED)
    assert "shapes-tiny" in BUNDLED


def test_model_is_small(tiny: ZooModel, folder: Path) -> None:
    sizes = {name: (folder / name).stat().st_size for name in tiny.files}
    assert sum(size for name, size in sizes.items() if name.endswith(".safetensors")) < 2_900_000
    assert sum(sizes.values()) < 3_000_000
    assert tiny.bytes == sum(sizes.values())


def test_files_match_manifest_and_config(tiny: ZooModel, folder: Path) -> None:
    config = read_config(folder)
    check_files(folder, config)
    assert sorted(model_files(folder)) == sorted(config.files)
    assert sorted(tiny.files) == sorted(["config.json", *config.files])
    assert bundled_entry(folder) == tiny
    assert verify(tiny) == []


def test_spec_equals_the_shipped_spec(folder: Path) -> None:
    shipped = load_spec("shapes-tiny").spec.to_dict()
    # Resolved again: keys that are newer than the model get their defaults.
    kept = resolve(read_config(folder).spec, source="config.json").spec.to_dict()
    for spec in (shipped, kept):
        del spec["requires"]
    assert kept == shipped


def test_samples_are_reproducible(folder: Path) -> None:
    import torch

    from cascadezoo import Cascade

    cascade = Cascade.from_pretrained(folder)
    images = cascade.sample(8, seed=0)
    assert images.shape == (8, 3, 32, 32)
    assert (images.mean((2, 3)) - torch.tensor(MEANS)).abs().max() < 0.02
    # Shapes on white: most pixels are white, and no image is empty.
    white = (images > 0.9).all(1).float().mean((1, 2))
    assert white.min() > 0.3
    assert white.max() < 0.9


def test_sampling_by_name_needs_no_network(tmp_path: Path) -> None:
    # An unreachable address: any request to the Hub fails.
    env = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hf")}
    work = tmp_path / "empty"
    work.mkdir()
    line = ["sample", "shapes-tiny", "-n", "4", "--steps", "2", "-o", "grid.png"]
    done = subprocess.run(
        [sys.executable, "-m", "cascadezoo", *line],
        cwd=work,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [path.name for path in work.iterdir()] == ["grid.png"]


def test_model_loads_by_name() -> None:
    from cascadezoo import Cascade

    cascade = Cascade.from_pretrained("shapes-tiny")
    assert cascade.names == ["coarse", "up", "refine"]
    assert sum(p.numel() for p in cascade.parameters()) == find("shapes-tiny").parameters


def test_the_manifest_states_the_figure_of_the_model(folder: Path) -> None:
    """`evaluate --check` measures it again, in tests/cli/test_cli_evaluate.py."""
    (result,) = (
        figure
        for figure in json.loads((folder / "metrics.json").read_text())["figures"]
        if figure["metric"] == "kid"
    )
    assert find("shapes-tiny").metrics[result["name"]].value == result["value"]
