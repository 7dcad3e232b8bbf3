"""Loading a trained model never looks into the source that its config.json names."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from kl_cases import save

from cascadezoo import Cascade
from cascadezoo.errors import SpecError

DRAW = {"name": "draw", "kind": "flow.v1", "config": {"channels": 8, "multipliers": [1, 1], "steps": 2}}  # fmt: skip
UNET = {"block_out_channels": [32], "layers_per_block": 1}
OPEN = {
    "autoencoder-kl.v1": ["block_out_channels", "scaling_factor"],
    "diffusers-autoencoder-kl.v1": ["vae"],
    "diffusers-unet2d.v1": ["unet", "scheduler", "sampler"],
}


def spec(*stages: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "latent",
        "data": {"source": "shapes", "config": {"size": 16}, "num_classes": 0},
        "stages": list(stages),
        "training": {"losses": []},
        "evaluation": {"metrics": []},
    }


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A folder of diffusers whose files hang whoever opens them."""
    folder = tmp_path / "trap"
    for inner in (folder, folder / "vae", folder / "unet"):
        inner.mkdir()
        os.mkfifo(inner / "config.json")
    return folder


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vae")
    save(folder)
    return folder


@pytest.fixture(scope="module")
def models(autoencoder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model with each kind."""
    source = {"source": str(autoencoder)}
    folders = {}
    for kind in OPEN:
        stages = [DRAW, {"name": "decode", "kind": kind, "config": source}]
        if kind == "diffusers-unet2d.v1":
            config = {"unet": UNET, "conditional": False}
            stages = [{"name": "draw", "kind": kind, "config": config}]
        folder = tmp_path_factory.mktemp("models") / kind
        folders[kind] = Cascade.from_spec(spec(*stages)).save_pretrained(folder)
    return folders


def spec_of(model: Path) -> dict[str, Any]:
    raw: dict[str, Any] = json.loads((model / "config.json").read_text())["spec"]
    return raw


def loaded(raw: dict[str, Any], model: Path, tmp_path: Path) -> Cascade:
    """Load a copy of a model whose config.json was changed to this spec."""
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "spec": raw}))
    return Cascade.from_pretrained(folder)


@pytest.mark.parametrize("kind", OPEN)
@pytest.mark.parametrize(
    "source", ["TRAP", "TRAP/vae", "/dev/zero", "a\0b", "~nobody/x", "org/name"]
)
def test_a_complete_spec_needs_no_source(
    kind: str, source: str, models: dict[str, Path], trap: Path, tmp_path: Path
) -> None:
    raw = spec_of(models[kind])
    raw["stages"][-1]["config"]["source"] = source.replace("TRAP", str(trap))
    again = loaded(raw, models[kind], tmp_path).spec
    assert again.stages[-1].config == raw["stages"][-1]["config"]


@pytest.mark.parametrize(("kind", "field"), [(k, f) for k, fields in OPEN.items() for f in fields])
@pytest.mark.parametrize("source", ["TRAP", "/", "a\0b", "~nobody/x", "org/name", "x" * 4000])
def test_a_spec_that_leaves_fields_to_its_source_is_refused(
    kind: str, field: str, source: str, models: dict[str, Path], trap: Path, tmp_path: Path
) -> None:
    raw = spec_of(models[kind])
    config = raw["stages"][-1]["config"]
    config["source"] = source.replace("TRAP", str(trap))
    del config[field]
    with pytest.raises(SpecError) as caught:
        loaded(raw, models[kind], tmp_path)
    place = f"stages.{len(raw['stages']) - 1}.config.{field}"
    assert (place, "unresolved") in {(p.path, p.code) for p in caught.value.problems}


def test_a_saved_model_samples_without_its_source(
    autoencoder: Path, trap: Path, tmp_path: Path
) -> None:
    stage = {"name": "decode", "kind": "autoencoder-kl.v1", "config": {"source": str(autoencoder)}}
    folder = Cascade.from_spec(spec(DRAW, stage)).save_pretrained(tmp_path / "model")
    raw = json.loads((folder / "config.json").read_text())
    raw["spec"]["stages"][1]["config"]["source"] = str(trap)
    (folder / "config.json").write_text(json.dumps(raw))
    assert Cascade.from_pretrained(folder).sample(2).shape == (2, 3, 16, 16)
    del raw["spec"]["stages"][1]["config"]["latent_channels"]
    (folder / "config.json").write_text(json.dumps(raw))
    with pytest.raises(SpecError) as caught:
        Cascade.from_pretrained(folder)
    assert [p.code for p in caught.value.problems] == ["unresolved"]
