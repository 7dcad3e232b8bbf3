"""Complete cascades: built from a spec, trained jointly, saved, loaded without their sources."""

from __future__ import annotations

import json
import re
import shutil
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import cascadezoo_diffusers
import diffusers
import pytest
import torch
from cascadezoo_diffusers import register_stages
from cascadezoo_diffusers.config import UNet2DConfig
from cascadezoo_diffusers.samplers import SAMPLERS
from cases import UNET, VAE, save_pipeline
from error_codes import raises

from cascadezoo import Cascade, build_cascade, load_spec
from cascadezoo.errors import ModelError, SampleError, SpecError

PROCESS = {"num_train_timesteps": 20, "beta_start": 0.01, "beta_end": 0.3}
DATA = {"source": "shapes", "config": {"size": 16, "count": 64, "test_count": 16}}


def spec(stages: list[dict[str, Any]], phases: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": "wrapped",
        "data": DATA,
        "stages": stages,
        "training": {
            "batch_size": 16,
            "losses": [],
            "optimizer": {"lr": 0.003},
            "log_steps": 2,
            "phases": phases,
        },
        "evaluation": {"metrics": []},
    }


def losses(run: Path, phase: str) -> list[float]:
    rows = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return [
        sum(row["losses"].values()) for row in rows if "losses" in row and row.get("phase") == phase
    ]


@pytest.mark.slow
def test_a_wrapped_pipeline_is_finetuned_jointly_and_published(tmp_path: Path) -> None:
    source = tmp_path / "source"
    save_pipeline(source)
    upsampler = {"unet": UNET, "scheduler": PROCESS, "sampler": "dpmpp-2m", "steps": 5}
    data = spec(
        [
            {"name": "coarse", "kind": "diffusers-unet2d", "config": {"source": str(source)}},
            {"name": "up", "kind": "diffusers-unet2d-sr.v1", "config": upsampler},
        ],
        [
            {"name": "up", "train": ["up"], "steps": 12},
            {
                "name": "joint",
                "train": ["coarse", "up"],
                "steps": 4,
                "joint": True,
                "teacher_forcing": {"start": 0.5, "end": 0.0},
            },
        ],
    )
    start = Cascade.from_spec(data)
    theirs = diffusers.DDPMPipeline.from_pretrained(source).unet.state_dict()
    for name, tensor in start.stage("coarse").network.state_dict().items():
        assert torch.equal(tensor, theirs[name]), name
    result = build_cascade(data, tmp_path / "run", device="cpu")
    shutil.rmtree(source)
    cascade = Cascade.from_pretrained(result.model)
    assert cascade.spec.stages[0].kind == "diffusers-unet2d.v1"
    assert any(text.startswith("cascadezoo-diffusers>=") for text in cascade.spec.requires)
    changed = cascade.stage("coarse").network.state_dict()["conv_in.weight"]
    assert not torch.equal(changed, theirs["conv_in.weight"]), "the joint phase did not train it"
    files = {path.name for path in (result.model / "stages" / "coarse").iterdir()}
    assert files == {"model.safetensors"}
    assert "diffusers-unet2d.v1" in (result.model / "README.md").read_text()
    images = cascade.sample(3, steps={"coarse": 4})
    assert images.shape == (3, 3, 16, 16)
    split = cascade.sample(3, steps={"coarse": 4}, batch_size=2)
    assert (images - split).abs().max() < 1e-4
    other = cascade.sample(3, sampler={"coarse": "unipc", "up": "euler-ancestral"}, steps=4)
    assert (images - other).abs().max() > 1e-3
    with raises(SampleError, "sample-sampler-unknown", name="nonsense"):
        cascade.sample(1, sampler="nonsense")
    assert images.isfinite().all()
    with raises(SpecError, "spec", problems={"stages.0.config.source": "source"}):
        Cascade.from_spec(data)
    rows = losses(result.run, "up")
    assert sum(rows[-2:]) < sum(rows[:2])


@pytest.mark.slow
def test_latent_diffusion_of_diffusers_alone(tmp_path: Path) -> None:
    data = spec(
        [
            {
                "name": "latents",
                "kind": "diffusers-unet2d.v1",
                "config": {"unet": UNET, "scheduler": {**PROCESS, "clip_sample": False}},
            },
            {"name": "decode", "kind": "diffusers-autoencoder-kl.v1", "config": {"vae": VAE}},
        ],
        [
            {"name": "autoencoder", "train": ["decode"], "steps": 20},
            {"name": "latents", "train": ["latents"], "steps": 4},
            {"name": "joint", "train": ["latents", "decode"], "steps": 2, "joint": True},
        ],
    )
    result = build_cascade(data, tmp_path / "run", device="cpu")
    rows = losses(result.run, "autoencoder")
    assert rows[-1] < 0.8 * rows[0]
    cascade = Cascade.from_pretrained(result.model)
    decoder = cascade.stage("decode")
    assert decoder.scale != 1
    stages = cascade.sample(3, steps=4, labels=[0, 1, 2], guidance=2.0, return_stages=True)
    assert stages["latents"].shape == (3, 3, 8, 8)
    assert stages["decode"].shape == (3, 3, 16, 16)
    again = Cascade.from_pretrained(cascade.save_pretrained(tmp_path / "saved"))
    assert torch.equal(again.sample(3, steps=4), cascade.sample(3, steps=4))
    path = tmp_path / "saved" / "stages" / "decode" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ModelError):
        Cascade.from_pretrained(tmp_path / "saved")


def test_an_autoencoder_of_a_source_is_only_trained_if_trainable(tmp_path: Path) -> None:
    blocks = {
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
    }
    diffusers.AutoencoderKL(**VAE, **blocks).save_pretrained(tmp_path / "vae")
    decoder = {
        "name": "decode",
        "kind": "diffusers-autoencoder-kl.v1",
        "config": {"source": str(tmp_path / "vae")},
    }
    latents = {"name": "latents", "kind": "diffusers-unet2d.v1", "config": {"unet": UNET}}
    raw = spec([latents, decoder], [])
    del raw["training"]["phases"]
    resolved = load_spec(raw)
    assert [phase.train for phase in resolved.spec.training.phases] == [["latents"]]
    decoder["config"] = {**decoder["config"], "trainable": True}
    resolved = load_spec(raw)
    assert [p.train for p in resolved.spec.training.phases] == [["decode"], ["latents"]]
    decoder["config"] = {"vae": VAE, "trainable": False}
    with raises(SpecError, "spec", problems={"stages.1.config.trainable": "no-weights"}):
        load_spec(raw)


def test_errors_have_the_path_in_the_spec(tmp_path: Path) -> None:
    stage = {"name": "coarse", "kind": "diffusers-unet2d.v1", "config": {"unet": {"dropout": 2.0}}}
    with pytest.raises(SpecError) as error:
        load_spec(spec([stage], []))
    assert any(p.path == "stages.0.config.unet.dropout" for p in error.value.problems)
    stage["config"] = {"source": str(tmp_path), "sampler": "ddmp"}
    with pytest.raises(SpecError) as error:
        load_spec(spec([stage], []))
    assert any(p.path == "stages.0.config.sampler" for p in error.value.problems)
    stage["config"] = {"source": str(tmp_path)}
    with pytest.raises(SpecError) as error:
        load_spec(spec([stage], []))
    assert any(p.path == "stages.0.config.source" for p in error.value.problems)


def readme() -> str:
    path = Path(__file__).parents[1] / "README.md"
    # The README is the description of a wheel.
    return (
        path.read_text() if path.is_file() else str(metadata("cascadezoo-diffusers").get_payload())
    )


def test_the_readme_lists_every_error_code() -> None:
    codes = set()
    for path in Path(cascadezoo_diffusers.__file__).parent.glob("*.py"):
        codes |= set(re.findall(r'\bcode="([a-z-]+)"', path.read_text()))
    table = readme().partition("## Error codes")[2].partition("\n## ")[0]
    assert codes == set(re.findall(r"`([a-z]+(?:-[a-z]+)*)`", table))


def test_the_readme_agrees_with_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = readme()
    stage, complete = (json.loads(b) for b in re.findall(r"```json\n(.*?)```", text, re.S))
    assert UNet2DConfig.model_validate(stage["config"]).sampler == "dpmpp-2m"
    complete["data"] |= {"channels": 1, "num_classes": 10}
    resolved = load_spec(complete)
    assert [str(s.output) for s in resolved.stages] == ["1x14x14", "1x28x28"]
    for name in SAMPLERS:
        assert f"`{name}`" in text
    # The last block of Python compares a wrapped pipeline with that of diffusers.
    save_pipeline(tmp_path / "ddpm", sample_size=16)
    block = re.findall(r"```python\n(.*?)```", text, re.S)[-1].replace("steps=1000", "steps=20")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    names: dict[str, Any] = {"spec": spec([], [{"name": "one", "train": ["coarse"], "steps": 1}])}
    exec(compile(block, "README", "exec"), names)
    assert names["mine"].std() > 0.1
    for entry in register_stages():
        assert f"`{entry.name}` | {entry.role} |" in text
