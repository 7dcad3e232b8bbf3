"""autoencoder-kl.v1: models of diffusers load and give the same results; others are rejected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from cascadezoo_diffusers import register_specs
from cascadezoo_diffusers.config_pretrained import ARCHITECTURE, PretrainedAutoencoderKLConfig
from cascadezoo_diffusers.pretrained import PretrainedAutoencoderKL
from cascadezoo_diffusers.source import CONFIG as CONFIG_FILE
from cascadezoo_diffusers.source import WEIGHTS as WEIGHTS_FILE
from error_codes import raises, raises_config
from kl_cases import IMAGE, NETWORK, build, loaded, pixels, request, save
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from cascadezoo import (
    Cascade,
    Draw,
    ImageShape,
    StageOutput,
    TrainContext,
    load_spec,
)
from cascadezoo.errors import ModelError, ModelReferenceError, SpecError


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("vae")
    return folder, save(folder)


@pytest.fixture
def copied(saved: tuple[Path, Any], tmp_path: Path) -> Path:
    """A copy of the folder that tests can damage."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in saved[0].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def edit(folder: Path, **changes: Any) -> None:
    path = folder / CONFIG_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


# --- saved models


def test_the_config_is_filled_in_from_the_folder(saved: tuple[Path, Any]) -> None:
    folder, theirs = saved
    config = build(folder).config
    for name in ARCHITECTURE:
        expected = theirs.config[name]
        expected = list(expected) if isinstance(expected, tuple) else expected
        assert getattr(config, name) == expected, name
    assert config.upstream_shape(IMAGE) == ImageShape(3, 8, latent=True)
    # A resolved config is complete: it validates and fits without the folder.
    elsewhere = {**config.model_dump(mode="json"), "source": "/nowhere/at/all"}
    again = PretrainedAutoencoderKLConfig.model_validate(elsewhere).fit(IMAGE)
    assert again == PretrainedAutoencoderKLConfig.model_validate(elsewhere)


def test_latents_and_images_equal_those_of_diffusers(saved: tuple[Path, Any]) -> None:
    folder, theirs = saved
    stage, images = loaded(folder), pixels()
    with torch.no_grad():
        expected = (theirs.encode(images).latent_dist.mode() - 0.05) * 0.4
        latents = stage.upstream_target(images)
        torch.testing.assert_close(latents, expected, rtol=0, atol=1e-5)
        decoded = theirs.decode(expected / 0.4 + 0.05).sample
        torch.testing.assert_close(
            stage.sample(latents, request(3)), decoded.clamp(-1, 1), rtol=0, atol=1e-5
        )
        inputs = stage.preprocess(images, latents, TrainContext(Draw(0)))
        output: StageOutput = stage(inputs)
    torch.testing.assert_close(output.estimate, decoded, rtol=0, atol=1e-5)
    assert output.losses == {}


def test_statistics_of_channels_are_used(saved: tuple[Path, Any], tmp_path: Path) -> None:
    mean, std = [0.1, -0.2, 0.3], [0.5, 1.0, 2.0]
    theirs = save(tmp_path, latents_mean=mean, latents_std=std, shift_factor=None)
    stage, images = loaded(tmp_path), pixels()
    with torch.no_grad():
        mode = theirs.encode(images).latent_dist.mode()
        shift, spread = (torch.tensor(rows).view(1, 3, 1, 1) for rows in (mean, std))
        latents = stage.upstream_target(images)
        torch.testing.assert_close(latents, (mode - shift) * 0.4 / spread, rtol=0, atol=1e-5)
        decoded = theirs.decode(latents * spread / 0.4 + shift).sample.clamp(-1, 1)
        torch.testing.assert_close(stage.sample(latents, request(3)), decoded, rtol=0, atol=1e-5)


def test_old_names_of_attention_layers_load(saved: tuple[Path, Any], copied: Path) -> None:
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = load_file(copied / WEIGHTS_FILE)
    for new, name in old.items():
        state = {k.replace(f".{new}.", f".{name}."): v for k, v in state.items()}
    assert "encoder.mid_block.attentions.0.proj_attn.bias" in state
    save_file(state, copied / WEIGHTS_FILE)
    for name, tensor in loaded(copied).state_dict().items():
        assert torch.equal(tensor, loaded(saved[0]).state_dict()[name]), name


def test_half_precision_becomes_float32(saved: tuple[Path, Any], copied: Path) -> None:
    state = {name: t.half() for name, t in load_file(copied / WEIGHTS_FILE).items()}
    save_file(state, copied / WEIGHTS_FILE)
    half, whole = loaded(copied), loaded(saved[0])
    assert {t.dtype for t in half.state_dict().values()} == {torch.float32}
    images = pixels()
    difference = half.upstream_target(images) - whole.upstream_target(images)
    assert difference.abs().max() < 0.01


def test_the_subfolder_of_a_pipeline_loads(tmp_path: Path) -> None:
    save(tmp_path / "vae")
    (tmp_path / "model_index.json").write_text("{}")
    assert loaded(tmp_path, subfolder="vae").config.latent_channels == 3
    assert loaded(tmp_path).config == build(tmp_path).config
    with raises_config("source", "source"):
        build(tmp_path, subfolder="unet")


def test_a_trained_model_needs_no_source(saved: tuple[Path, Any], tmp_path: Path) -> None:
    stage = loaded(saved[0])
    save_file(stage.state_dict(), tmp_path / "model.safetensors")
    config = PretrainedAutoencoderKLConfig.model_validate(
        {**stage.config.model_dump(mode="json"), "source": None}
    ).fit(IMAGE)
    with torch.device("meta"):
        copy = PretrainedAutoencoderKL(config, stage.geometry)
    copy.load_state_dict(load_file(tmp_path / "model.safetensors"), assign=True)
    z = Draw("z").randn(3, 3, 8, 8)
    assert not any(buffer.is_meta for buffer in copy.buffers())
    assert torch.equal(copy.sample(z, request(3)), stage.sample(z, request(3)))
    assert torch.equal(copy.upstream_target(pixels()), stage.upstream_target(pixels()))


# --- the stage


def test_the_stage_is_never_trained(saved: tuple[Path, Any]) -> None:
    stage = loaded(saved[0])
    assert PretrainedAutoencoderKLConfig.frozen
    assert stage.train(True) is stage
    assert not any(module.training for module in stage.modules())
    assert not any(parameter.requires_grad for parameter in stage.parameters())
    assert not stage.upstream_target(pixels().requires_grad_()).requires_grad
    z = Draw("z").randn(3, 3, 8, 8).requires_grad_()
    stage(stage.preprocess(pixels(), z, TrainContext(Draw(0)))).estimate.sum().backward()
    assert z.grad is not None
    assert z.grad.abs().min() > 0
    with pytest.raises(TypeError):
        stage.sample(None, request(1))


def test_other_sizes_types_and_devices_work(saved: tuple[Path, Any]) -> None:
    output = ImageShape(3, 27)
    stage = loaded(saved[0], output)
    assert stage.geometry.input == ImageShape(3, 14, latent=True)
    z = stage.upstream_target(pixels(2, 27))
    assert z.shape == (2, 3, 14, 14)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        low = stage.sample(z.bfloat16(), request(2))
        encoded = stage.upstream_target(pixels(2, 27))
    assert low.shape == (2, 3, 27, 27)
    assert low.dtype == encoded.dtype == torch.float32
    assert (encoded - z).abs().max() < 0.05
    with torch.device("meta"):
        meta = PretrainedAutoencoderKL(stage.config, stage.geometry)
    meta.to("meta")
    images = torch.empty(2, 3, 27, 27, device="meta")
    inputs = meta.preprocess(images, meta.upstream_target(images), TrainContext(Draw(0)))
    assert meta(inputs).estimate.shape == (2, 3, 27, 27)
    state = stage.state_dict()
    assert set(state) == {name for name, _ in stage.named_parameters()}
    assert all(tensor.is_contiguous() for tensor in state.values())


# --- invalid input


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"norm_num_groups": 7}, "value_error"),
        ({"latents_mean": [0.0] * 4}, "value_error"),
        ({"latents_mean": [0.0], "latents_std": [1.0]}, "value_error"),
        ({"latents_mean": [0.0] * 4, "latents_std": [0.0] * 4}, "value_error"),
        ({"source": "a/b@main", "revision": "main"}, "value_error"),
        ({"scaling_factor": 0.0}, "greater_than"),
        ({"act_fn": "silu"}, "extra_forbidden"),
    ],
)
def test_inconsistent_configs_are_rejected(fields: dict[str, Any], kind: str) -> None:
    with pytest.raises(ValidationError) as caught:
        PretrainedAutoencoderKLConfig.model_validate(fields)
    assert [row["type"] for row in caught.value.errors()] == [kind]


def test_other_images_are_rejected(saved: tuple[Path, Any]) -> None:
    with raises_config("in_channels", "channels"):
        build(saved[0], ImageShape(1, 16))
    with raises_config("block_out_channels", "levels"):
        PretrainedAutoencoderKLConfig().fit(ImageShape(3, 4))
    warnings = list(PretrainedAutoencoderKLConfig().advice(ImageShape(3, 32), None))
    assert len(warnings) == 2
    assert "source" in warnings[0]
    assert "4x4" in warnings[1]
    assert list(PretrainedAutoencoderKLConfig(source="a/b").advice(ImageShape(3, 256), None)) == []


def test_a_cascade_cannot_be_built_without_a_source() -> None:
    stage = build(None, block_out_channels=[8], norm_num_groups=4)
    with raises(SpecError, "spec", problems={"source": "source-missing"}):
        stage.load_initial_weights()


@pytest.mark.parametrize("source", ["./nowhere", "/nowhere/at/all", "nowhere", "~nobody-there/vae"])
def test_a_missing_path_is_rejected(source: str) -> None:
    with raises_config("source", "source"):
        build(source)
    every = {name: getattr(PretrainedAutoencoderKLConfig(), name) for name in ARCHITECTURE}
    small = {**every, "block_out_channels": [32]}
    with raises(ModelReferenceError, "reference-source-not-a-folder"):
        loaded(source, **small)


def test_differences_to_the_source_are_reported(saved: tuple[Path, Any]) -> None:
    stage = build(saved[0], scaling_factor=0.5, latent_channels=5)
    paths = {"latent_channels": "source-differs", "scaling_factor": "source-differs"}
    with raises(SpecError, "spec", problems=paths) as caught:
        stage.load_initial_weights()
    text = str(caught.value)
    for value in ("0.5", "0.4", str(saved[0] / CONFIG_FILE), '"latent_channels": 3'):
        assert value in text


def test_missing_fields_have_the_defaults_of_diffusers(copied: Path) -> None:
    path = copied / CONFIG_FILE
    raw = {k: v for k, v in json.loads(path.read_text()).items() if k in NETWORK or k[0] == "_"}
    del raw["scaling_factor"], raw["shift_factor"]
    path.write_text(json.dumps(raw))
    assert loaded(copied).config.scaling_factor == 0.18215
    theirs = diffusers.AutoencoderKL.from_pretrained(copied)
    assert theirs.config.scaling_factor == 0.18215


@pytest.mark.parametrize(
    ("changes", "code", "shown"),
    [
        ({"_class_name": "VQModel"}, "model-source-foreign", "'VQModel'"),
        ({"_class_name": "StableDiffusionPipeline"}, "model-source-foreign", "Pipeline'"),
        ({"_class_name": None}, "model-source-foreign", "None"),
        ({"act_fn": "gelu"}, "model-source-variant", "act_fn: "),
        ({"up_block_types": ["AttnUpDecoderBlock2D"]}, "model-source-variant", "up_block_types"),
        ({"norm_num_groups": 3}, "model-source-variant", "norm_num_groups"),
        ({"latent_channels": "four"}, "model-source-variant", "latent_channels: "),
    ],
)
def test_other_models_are_rejected(
    copied: Path, changes: dict[str, Any], code: str, shown: str
) -> None:
    edit(copied, **changes)
    with raises_config("source", "source") as caught:
        build(copied)
    assert isinstance(caught.value.__cause__, ModelError)
    assert caught.value.__cause__.code == code
    assert shown in caught.value.message


def test_missing_and_damaged_files_are_rejected(copied: Path) -> None:
    stage, weights = build(copied), copied / WEIGHTS_FILE
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with raises(ModelError, "model-source-unreadable", path=WEIGHTS_FILE):
        stage.load_initial_weights()
    weights.unlink()
    with raises(ModelError, "model-source-file-missing", name=WEIGHTS_FILE):
        stage.load_initial_weights()
    torch.save({}, copied / "diffusion_pytorch_model.bin")
    with raises(ModelError, "model-source-pickle") as caught:
        stage.load_initial_weights()
    assert "save_pretrained('saved')" in str(caught.value.hint)
    (copied / CONFIG_FILE).write_text("{")
    with raises(ModelError, "model-source-unreadable", path="config.json"):
        stage.load_initial_weights()
    (copied / CONFIG_FILE).unlink()
    with raises(ModelError, "model-source-file-missing", name="config.json"):
        stage.load_initial_weights()


def test_weights_of_another_network_are_rejected(copied: Path) -> None:
    stage, path = build(copied), copied / WEIGHTS_FILE
    before = {name: t.clone() for name, t in stage.state_dict().items()}
    state = load_file(path)
    odd = dict(state)
    odd["encoder.conv_in.weight"] = torch.zeros(8, 4, 3, 3)
    odd["extra.weight"] = odd.pop("quant_conv.bias")
    save_file(odd, path)
    with raises(ModelError, "model-source-mismatch") as caught:
        stage.load_initial_weights()
    for value in ("quant_conv.bias", "extra.weight", "encoder.conv_in.weight", "[8, 4, 3, 3]"):
        assert value in str(caught.value)
    assert all(torch.equal(t, before[name]) for name, t in stage.state_dict().items())
    state["decoder.conv_out.bias"] = torch.tensor([0.0, torch.nan, 0.0])
    save_file(state, path)
    with raises(ModelError, "model-source-not-finite"):
        stage.load_initial_weights()


# --- complete cascades


def spec(folder: Path) -> dict[str, Any]:
    return {
        "name": "latent",
        "data": {"source": "shapes", "config": {"size": 16, "count": 32, "test_count": 16}},
        "stages": [
            {"name": "draw", "kind": "flow.v1", "config": {"channels": 8, "steps": 2}},
            {"name": "decode", "kind": "autoencoder-kl", "config": {"source": str(folder)}},
        ],
        "training": {"losses": []},
        "evaluation": {"metrics": []},
    }


def test_a_cascade_samples_latents_and_images(saved: tuple[Path, Any], tmp_path: Path) -> None:
    cascade = Cascade.from_spec(spec(saved[0]))
    assert cascade.spec.stages[1].kind == "autoencoder-kl.v1"
    assert any(text.startswith("cascadezoo-diffusers>=") for text in cascade.spec.requires)
    stages = cascade.sample(2, seed=0, return_stages=True)
    assert stages["draw"].shape == (2, 3, 8, 8)
    assert stages["decode"].shape == (2, 3, 16, 16)


def test_a_spec_of_the_former_built_in_kind_still_loads(saved: tuple[Path, Any]) -> None:
    """autoencoder-kl.v1 was part of cascadezoo, so such a spec only requires cascadezoo."""
    resolved = load_spec(spec(saved[0])).spec.model_dump(mode="json", by_alias=True)
    version = next(t for t in resolved["requires"] if t.startswith("cascadezoo>="))
    again = load_spec({**resolved, "requires": [version]}).spec
    assert again.model_dump(mode="json", by_alias=True) == resolved


@pytest.mark.parametrize("entry", register_specs(), ids=lambda e: e.name)
def test_the_specs_resolve(entry: Any) -> None:
    resolved = load_spec(entry.name)
    assert resolved.spec.name == entry.name
    shapes = ["4x32x32 latents", "3x256x256"]
    if entry.name == "imagenet100-latent-ddim":
        # Shah et al. 2024, sections III-B and V-B: 128x128 images, latents of 32x32.
        shapes = ["3x32x32 latents", "3x128x128"]
        assert resolved.num_classes == 100
        assert resolved.spec.training.batch_size == 128
    assert [str(stage.output) for stage in resolved.stages] == shapes
    assert load_spec(resolved.spec.model_dump(mode="json", by_alias=True)).spec == resolved.spec


def test_the_number_of_parameters_is_that_of_stable_diffusion() -> None:
    with torch.device("meta"):
        stage = build(None, ImageShape(3, 256))
    # https://huggingface.co/stabilityai/sd-vae-ft-mse: 83.7 M
    assert sum(p.numel() for p in stage.parameters()) == 83_653_863
