"""Weights of folders and of the Hub, and what is said of those that cannot be used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from cascadezoo_diffusers.config import UNet2DConfig
from cascadezoo_diffusers.unet import UNet2DGenerator
from cascadezoo_diffusers.weights import modern_name
from cases import Case, save_pipeline, stage_from
from safetensors.torch import load_file, save_file

from cascadezoo import ConfigError, ImageDraw, ImageShape, SampleRequest, StageGeometry
from cascadezoo.errors import ModelError, SampleError, SpecError

OUTPUT = ImageShape(3, 8)
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_pipeline(tmp_path / "pipeline")
    return tmp_path / "pipeline"


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def fit(source: Path | str | None, **more: Any) -> UNet2DConfig:
    text = None if source is None else str(source)
    return UNet2DConfig.model_validate({"source": text, **more}).fit(OUTPUT)


def images(stage: Any) -> torch.Tensor:
    with torch.no_grad():
        made: torch.Tensor = stage.sample(None, SampleRequest(2, ImageDraw(0, "s", 0, 2), steps=4))
    return made


# --- what works


def test_pipelines_models_and_flat_folders_are_the_same(folder: Path, tmp_path: Path) -> None:
    wanted = images(stage_from(folder))
    assert torch.equal(images(stage_from(folder, subfolder="unet")), wanted)
    # Early repositories have all files in one folder.
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in (*(folder / "unet").iterdir(), *(folder / "scheduler").iterdir()):
        (flat / path.name).write_bytes(path.read_bytes())
    assert torch.equal(images(stage_from(flat)), wanted)
    # A model alone does not tell how it was trained.
    with pytest.raises(ConfigError, match="write the one that its model was trained with") as e:
        stage_from(folder / "unet")
    assert e.value.field == "scheduler"
    scheduler = {"num_train_timesteps": 20, "beta_start": 0.01, "beta_end": 0.3}
    more = {**scheduler, "timestep_spacing": "leading"}
    assert torch.equal(images(stage_from(folder / "unet", scheduler=more)), wanted)


def test_a_fitted_config_needs_no_source(folder: Path) -> None:
    config = fit(folder)
    wanted = stage_from(folder)
    saved = json.loads(json.dumps(config.model_dump(mode="json")))
    (folder / "unet" / "config.json").unlink()
    again = UNet2DConfig.model_validate(saved).fit(OUTPUT)
    assert again == config
    stage = UNet2DGenerator(again, StageGeometry(OUTPUT))
    stage.load_state_dict(wanted.state_dict())
    assert torch.equal(images(stage.eval()), images(wanted))
    with pytest.raises(ModelError, match=r"there is no config\.json"):
        stage.load_initial_weights()


def test_half_precision_and_the_names_of_old_are_read(folder: Path) -> None:
    wanted = stage_from(folder).state_dict()
    path = folder / "unet" / WEIGHTS
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def renamed(name: str) -> str:
        if ".attentions." in name:
            for new, before in old.items():
                name = name.replace(f".{new}.", f".{before}.")
        return name

    state = {renamed(name): t.half() for name, t in load_file(path).items()}
    assert any("proj_attn" in name for name in state)
    assert {modern_name(name) for name in state} == set(load_file(path))
    save_file(state, path)
    for name, tensor in stage_from(folder).state_dict().items():
        assert tensor.dtype == torch.float32
        assert (tensor - wanted[name]).abs().max() < 1e-3, name


# --- what does not


def break_class(folder: Path) -> None:
    edit(folder / "unet" / "config.json", _class_name="UNet2DConditionModel")


def break_blocks(folder: Path) -> None:
    blocks = ["DownBlock2D", "AttnSkipDownBlock2D"]
    edit(folder / "unet" / "config.json", down_block_types=blocks)


def break_embedding(folder: Path) -> None:
    edit(folder / "unet" / "config.json", time_embedding_type="fourier")


def break_novelty(folder: Path) -> None:
    edit(folder / "unet" / "config.json", rotary=True)


def break_json(folder: Path) -> None:
    (folder / "unet" / "config.json").write_text("{")


def break_list(folder: Path) -> None:
    (folder / "unet" / "config.json").write_text("[]")


def break_family(folder: Path) -> None:
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 1.0}))


def break_variance(folder: Path) -> None:
    edit(folder / "scheduler" / "scheduler_config.json", variance_type="learned_range")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (break_class, "is of 'UNet2DConditionModel', not of UNet2DModel"),
        (break_blocks, "down_block_types.1: Input should be 'DownBlock2D', 'AttnDownBlock2D'"),
        (break_embedding, "time_embedding_type: Input should be 'positional'"),
        (break_novelty, "rotary = True, which is not supported"),
        (break_json, "cannot be read"),
        (break_list, "not a JSON object"),
        (break_family, "of 'FlowMatchEulerDiscreteScheduler', whose models are not trained by"),
        (break_variance, "variance_type: Input should be 'fixed_small'"),
    ],
)
def test_what_cannot_be_used_is_said_before_anything_is_built(
    folder: Path, spoil: Callable[[Path], None], said: str
) -> None:
    spoil(folder)
    with pytest.raises(ConfigError, match=said) as error:
        fit(folder)
    assert error.value.field == "source"


@pytest.mark.parametrize("text", ["./nowhere", "/nowhere/at/all", "~nobody/model", "a/b/c"])
def test_paths_that_lead_nowhere(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a folder") as error:
        fit(text)
    assert error.value.field == "source"


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no config\.json in .*UNet2DModel"):
        fit(tmp_path)
    with pytest.raises(ConfigError, match="the folder 'inner'"):
        fit(tmp_path, subfolder="inner")


def test_pickles_are_refused(folder: Path) -> None:
    path = folder / "unet" / WEIGHTS
    torch.save(load_file(path), path.with_suffix(".bin"))
    path.unlink()
    with pytest.raises(ModelError, match="as a pickle alone") as error:
        stage_from(folder)
    assert "save_pretrained('saved')" in str(error.value.hint)
    path.with_suffix(".bin").unlink()
    with pytest.raises(ModelError, match="there is no diffusion_pytorch_model.safetensors"):
        stage_from(folder)
    (folder / "unet" / f"{WEIGHTS}.index.json").write_text("{}")
    with pytest.raises(ModelError, match="are in parts"):
        stage_from(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: {**s, "extra": torch.zeros(1)}, "extra is not part of the network"),
        (lambda s: {k: t for k, t in s.items() if k != "conv_in.bias"}, "conv_in.bias is missing"),
        (lambda s: {**s, "conv_in.bias": torch.zeros(3)}, r"has shape \[3\], not \[8\]"),
        (lambda s: {**s, "conv_in.bias": torch.full((8,), torch.nan)}, "not made of finite"),
    ],
)
def test_weights_of_something_else(folder: Path, change: Any, said: str) -> None:
    path = folder / "unet" / WEIGHTS
    save_file(change(load_file(path)), path)
    with pytest.raises(ModelError, match=said):
        stage_from(folder)


def test_damaged_weights(folder: Path) -> None:
    (folder / "unet" / WEIGHTS).write_bytes(b"\x00" * 100)
    with pytest.raises(ModelError, match="not a readable safetensors file"):
        stage_from(folder)


def test_a_spec_that_contradicts_its_source(folder: Path) -> None:
    unet = {"block_out_channels": [16, 16], "norm_num_groups": 4}
    scheduler = {"num_train_timesteps": 20, "prediction_type": "v_prediction"}
    with pytest.raises(SpecError) as error:
        stage_from(folder, unet=unet, scheduler=scheduler)
    paths = {problem.path for problem in error.value.problems}
    assert {"unet.block_out_channels", "scheduler.prediction_type"} <= paths
    assert 'write "block_out_channels": [8, 16]' in str(error.value)


def test_settings_of_a_scheduler_that_would_be_lost(tmp_path: Path) -> None:
    scheduler = diffusers.UniPCMultistepScheduler(
        num_train_timesteps=20, beta_start=0.01, beta_end=0.3, predict_x0=False
    )
    save_pipeline(tmp_path, scheduler)
    with pytest.raises(ModelError, match="has predict_x0 = False, which .* has no field for"):
        stage_from(tmp_path)
    assert stage_from(tmp_path, sampler="heun").config.sampler == "heun"
    path = tmp_path / "scheduler" / "scheduler_config.json"
    edit(path, _class_name="LMSDiscreteScheduler")
    with pytest.raises(ConfigError, match="the LMSDiscreteScheduler of the source") as error:
        fit(tmp_path)
    assert error.value.field == "sampler"
    assert fit(tmp_path, sampler="euler").scheduler.beta_end == 0.3


@pytest.mark.parametrize(
    ("settings", "field", "said"),
    [
        ({"unet": {"block_out_channels": [8] * 5, "norm_num_groups": 4}}, "unet.", "at most 4"),
        ({"unet": {"in_channels": 4}}, "unet.in_channels", "this place asks for 3"),
        ({"sampler": "pndm", "scheduler": {"prediction_type": "sample"}}, "sampler", "predicts s"),
        ({"sampler": "dpmpp-2m", "steps": 1000}, "steps", "takes 1 to 999"),
        (
            {
                "sampler": "heun",
                "scheduler": {"prediction_type": "sample", "rescale_betas_zero_snr": True},
            },
            "sampler",
            "zero terminal SNR",
        ),
    ],
)
def test_settings_that_do_not_fit_together(settings: Any, field: str, said: str) -> None:
    small = {"unet": {"block_out_channels": [8], "norm_num_groups": 4, "attention_head_dim": 4}}
    with pytest.raises(ConfigError, match=said) as error:
        fit(None, **{**small, **settings})
    assert error.value.field.startswith(field)


def test_latents_are_never_clipped() -> None:
    latents = ImageShape(4, 8, latent=True)
    settings: dict[str, Any] = {"unet": {"block_out_channels": [32]}}
    assert not UNet2DConfig.model_validate(settings).fit(latents).scheduler.clip_sample
    settings["scheduler"] = {"clip_sample": True}
    with pytest.raises(ConfigError, match="this stage makes latents"):
        UNet2DConfig.model_validate(settings).fit(latents)


@pytest.mark.parametrize(
    ("rows", "classes", "more", "said"),
    [
        (4, 5, {}, "is 4, but the data have 5 labels"),
        (4, None, {}, "is 4, but the data have no labels"),
        (5, 5, {"label_drop": 0.1}, "no label that stands for none"),
    ],
)
def test_tables_of_labels_that_do_not_fit(
    rows: int, classes: int | None, more: dict[str, Any], said: str
) -> None:
    unet = {"block_out_channels": [8], "norm_num_groups": 4, "num_class_embeds": rows}
    case = Case("diffusers-unet2d.v1", {"unet": unet, **more}, size=8, num_classes=classes)
    with pytest.raises(SpecError, match=said):
        case.make()


def test_labels_of_the_data_and_of_the_source(tmp_path: Path) -> None:
    save_pipeline(tmp_path / "plain")
    assert stage_from(tmp_path / "plain", num_classes=5).labels is None
    with pytest.raises(ConfigError, match="knows no labels") as error:
        stage_from(tmp_path / "plain", num_classes=5, conditional=True)
    assert error.value.field == "conditional"
    save_pipeline(tmp_path / "classes", num_class_embeds=5)
    stage = stage_from(tmp_path / "classes", num_classes=5)
    labels = torch.tensor([1, 2])
    with pytest.raises(SampleError, match="trained without hidden labels"):
        stage.sample(None, asked(labels=labels, guidance=2.0))
    with pytest.raises(SampleError, match="needs labels"):
        stage.sample(None, asked())


def asked(**more: Any) -> SampleRequest:
    return SampleRequest(2, ImageDraw(0, "s", 0, 2), **more)


@pytest.mark.parametrize(
    ("options", "said", "hint"),
    [
        ({"sampler": "nonsense"}, "no sampler 'nonsense'", "use one of ddpm, ddim"),
        ({"steps": 0}, "in 0 steps", "1 to 20"),
        ({"steps": 21}, "in 21 steps", "1 to 20"),
        ({"sampler": "dpmpp-2m", "steps": 20}, "in 20 steps", "1 to 19"),
        ({"sampler": "pndm", "steps": 3}, "in 3 steps", "4 to 20"),
        ({"options": {"eta": 0.5}}, "the sampler is ddpm", "add sampler ddim"),
        ({"sampler": "ddim", "options": {"eta": 2}}, "eta lies in 0..1", "as much as ddpm"),
        ({"guidance": 2.0}, "knows no labels", "leave it out"),
        ({"guidance": -1.0}, "guidance of -1", "1 is none"),
    ],
)
def test_requests_that_cannot_be_served(
    folder: Path, options: dict[str, Any], said: str, hint: str
) -> None:
    with pytest.raises(SampleError, match=said) as error:
        stage_from(folder).sample(None, asked(**options))
    assert hint in str(error.value.hint)


@pytest.mark.parametrize(("name", "states"), [("ddpm", 5), ("euler", 5), ("heun", 9)])
def test_states_are_shown_at_the_scale_of_images(folder: Path, name: str, states: int) -> None:
    seen: list[float] = []

    def watch(image: torch.Tensor) -> None:
        seen.append(float(image.std()))

    stage = stage_from(folder)
    with torch.no_grad():
        stage.sample(None, asked(sampler=name, steps=5, watch=watch))
    assert len(seen) == states
    # The first states are noise; a sampler in units of its own starts at a deviation above 4.
    assert seen[0] < 2
