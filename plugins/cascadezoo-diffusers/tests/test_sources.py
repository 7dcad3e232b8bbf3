"""Weights of folders, and errors of unusable sources."""

from __future__ import annotations

import json
import shutil
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
from error_codes import raises, raises_config
from safetensors.torch import load_file, save_file

from cascadezoo import ImageDraw, ImageShape, SampleRequest, StageGeometry
from cascadezoo.errors import CascadezooError, ModelError, SampleError, SpecError

OUTPUT = ImageShape(3, 8)
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    save_pipeline(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of the pipeline that tests can damage."""
    return Path(shutil.copytree(saved, tmp_path / "pipeline"))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def fit(source: Path | str | None, **more: Any) -> UNet2DConfig:
    text = None if source is None else str(source)
    return UNet2DConfig.model_validate({"source": text, **more}).fit(OUTPUT)


def images(stage: Any) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = stage.sample(None, request(steps=4))
    return result


# --- valid sources


def test_pipelines_models_and_flat_folders_are_the_same(folder: Path, tmp_path: Path) -> None:
    expected = images(stage_from(folder))
    assert torch.equal(images(stage_from(folder, subfolder="unet")), expected)
    # Early repositories have all files in one folder.
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in (*(folder / "unet").iterdir(), *(folder / "scheduler").iterdir()):
        (flat / path.name).write_bytes(path.read_bytes())
    assert torch.equal(images(stage_from(flat)), expected)
    # A model alone does not define its training.
    with raises_config("scheduler", "scheduler-missing"):
        stage_from(folder / "unet")
    scheduler = {"num_train_timesteps": 20, "beta_start": 0.01, "beta_end": 0.3}
    more = {**scheduler, "timestep_spacing": "leading"}
    assert torch.equal(images(stage_from(folder / "unet", scheduler=more)), expected)


def test_a_fitted_config_needs_no_source(folder: Path) -> None:
    config = fit(folder)
    original = stage_from(folder)
    saved = json.loads(json.dumps(config.model_dump(mode="json")))
    (folder / "unet" / "config.json").unlink()
    again = UNet2DConfig.model_validate(saved).fit(OUTPUT)
    assert again == config
    stage = UNet2DGenerator(again, StageGeometry(OUTPUT))
    stage.load_state_dict(original.state_dict())
    assert torch.equal(images(stage.eval()), images(original))
    with raises(ModelError, "model-source-file-missing", name="config.json"):
        stage.load_initial_weights()


def test_half_precision_and_old_names_are_read(folder: Path) -> None:
    expected = stage_from(folder).state_dict()
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
        assert (tensor - expected[name]).abs().max() < 1e-3, name


# --- invalid sources


def break_class(folder: Path) -> None:
    edit(folder / "unet" / "config.json", _class_name="UNet2DConditionModel")


def break_blocks(folder: Path) -> None:
    blocks = ["DownBlock2D", "AttnSkipDownBlock2D"]
    edit(folder / "unet" / "config.json", down_block_types=blocks)


def break_embedding(folder: Path) -> None:
    edit(folder / "unet" / "config.json", time_embedding_type="fourier")


def break_field(folder: Path) -> None:
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
    ("damage", "code", "shown"),
    [
        (break_class, "model-source-foreign", "'UNet2DConditionModel'"),
        (break_blocks, "model-source-variant", "down_block_types.1"),
        (break_embedding, "model-source-variant", "time_embedding_type"),
        (break_field, "model-source-variant", "rotary = True"),
        (break_json, "model-source-unreadable", "config.json"),
        (break_list, "model-source-unreadable", "config.json"),
        (break_family, "model-source-scheduler", "'FlowMatchEulerDiscreteScheduler'"),
        (break_variance, "model-source-variant", "variance_type"),
    ],
)
def test_unusable_sources_are_rejected_before_building(
    folder: Path, damage: Callable[[Path], None], code: str, shown: str
) -> None:
    damage(folder)
    with raises_config("source", "source") as caught:
        fit(folder)
    assert cause(caught.value).code == code
    assert shown in caught.value.message


def cause(error: BaseException) -> CascadezooError:
    assert isinstance(error.__cause__, CascadezooError)
    return error.__cause__


@pytest.mark.parametrize("text", ["./nowhere", "/nowhere/at/all", "~nobody/model", "a/b/c"])
def test_missing_paths_are_rejected(text: str) -> None:
    with raises_config("source", "source") as caught:
        fit(text)
    assert cause(caught.value).code == "reference-source-not-a-folder"


def test_an_empty_folder_is_rejected(tmp_path: Path) -> None:
    with raises_config("source", "source") as caught:
        fit(tmp_path)
    assert cause(caught.value).code == "model-source-file-missing"
    with raises_config("source", "source") as caught:
        fit(tmp_path, subfolder="inner")
    assert "'inner'" in caught.value.message


def test_pickles_are_rejected(folder: Path) -> None:
    path = folder / "unet" / WEIGHTS
    torch.save(load_file(path), path.with_suffix(".bin"))
    path.unlink()
    with raises(ModelError, "model-source-pickle") as caught:
        stage_from(folder)
    assert "save_pretrained('saved')" in str(caught.value.hint)
    path.with_suffix(".bin").unlink()
    with raises(ModelError, "model-source-file-missing", name=WEIGHTS):
        stage_from(folder)
    (folder / "unet" / f"{WEIGHTS}.index.json").write_text("{}")
    with raises(ModelError, "model-source-in-parts") as caught:
        stage_from(folder)
    assert "save_pretrained('saved', max_shard_size='100GB')" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("change", "code", "shown"),
    [
        (lambda s: {**s, "extra": torch.zeros(1)}, "mismatch", "extra"),
        (lambda s: {k: t for k, t in s.items() if k != "conv_in.bias"}, "mismatch", "conv_in.bias"),
        (lambda s: {**s, "conv_in.bias": torch.zeros(3)}, "mismatch", "[3]"),
        (
            lambda s: {**s, "conv_in.bias": torch.full((8,), torch.nan)},
            "not-finite",
            "conv_in.bias",
        ),
    ],
)
def test_weights_of_another_network_are_rejected(
    folder: Path, change: Any, code: str, shown: str
) -> None:
    path = folder / "unet" / WEIGHTS
    save_file(change(load_file(path)), path)
    with raises(ModelError, f"model-source-{code}", path=WEIGHTS) as caught:
        stage_from(folder)
    assert shown in caught.value.what


def test_damaged_weights_are_rejected(folder: Path) -> None:
    (folder / "unet" / WEIGHTS).write_bytes(b"\x00" * 100)
    with raises(ModelError, "model-source-unreadable", path=WEIGHTS):
        stage_from(folder)


def test_differences_between_spec_and_source_are_reported(folder: Path) -> None:
    unet = {"block_out_channels": [16, 16], "norm_num_groups": 4}
    scheduler = {"num_train_timesteps": 20, "prediction_type": "v_prediction"}
    with pytest.raises(SpecError) as error:
        stage_from(folder, unet=unet, scheduler=scheduler)
    rows = {(problem.path, problem.code) for problem in error.value.problems}
    paths = ("unet.block_out_channels", "scheduler.prediction_type")
    assert {(path, "source-differs") for path in paths} <= rows
    assert '"block_out_channels": [8, 16]' in str(error.value)


def test_unsupported_settings_of_a_scheduler_are_rejected(tmp_path: Path) -> None:
    scheduler = diffusers.UniPCMultistepScheduler(
        num_train_timesteps=20, beta_start=0.01, beta_end=0.3, predict_x0=False
    )
    save_pipeline(tmp_path, scheduler)
    with raises(ModelError, "model-source-scheduler-setting", names=["predict_x0"]):
        stage_from(tmp_path)
    assert stage_from(tmp_path, sampler="heun").config.sampler == "heun"
    path = tmp_path / "scheduler" / "scheduler_config.json"
    edit(path, _class_name="LMSDiscreteScheduler")
    with raises_config("sampler", "sampler-missing") as caught:
        fit(tmp_path)
    assert "LMSDiscreteScheduler" in caught.value.message
    assert fit(tmp_path, sampler="euler").scheduler.beta_end == 0.3


@pytest.mark.parametrize(
    ("settings", "field", "code"),
    [
        (
            {"unet": {"block_out_channels": [8] * 5, "norm_num_groups": 4}},
            "unet.block_out_channels",
            "levels",
        ),
        ({"unet": {"in_channels": 4}}, "unet.in_channels", "channels"),
        (
            {"sampler": "pndm", "scheduler": {"prediction_type": "sample"}},
            "sampler",
            "sampler-unsupported",
        ),
        ({"sampler": "dpmpp-2m", "steps": 1000}, "steps", "steps-out-of-range"),
        (
            {
                "sampler": "heun",
                "scheduler": {"prediction_type": "sample", "rescale_betas_zero_snr": True},
            },
            "sampler",
            "sampler-unsupported",
        ),
    ],
)
def test_inconsistent_settings_are_rejected(settings: Any, field: str, code: str) -> None:
    small = {"unet": {"block_out_channels": [8], "norm_num_groups": 4, "attention_head_dim": 4}}
    with raises_config(field, code):
        fit(None, **{**small, **settings})


def test_latents_are_never_clipped() -> None:
    latents = ImageShape(4, 8, latent=True)
    settings: dict[str, Any] = {"unet": {"block_out_channels": [32]}}
    assert not UNet2DConfig.model_validate(settings).fit(latents).scheduler.clip_sample
    settings["scheduler"] = {"clip_sample": True}
    with raises_config("scheduler", "latents"):
        UNet2DConfig.model_validate(settings).fit(latents)


@pytest.mark.parametrize(
    ("rows", "classes", "more", "problem"),
    [
        (4, 5, {}, {"unet.num_class_embeds": "too-few-rows"}),
        (4, None, {}, {"unet.num_class_embeds": "data-without-labels"}),
        (5, 5, {"label_drop": 0.1}, {"label_drop": "no-null-label"}),
    ],
)
def test_unsuitable_label_tables_are_rejected(
    rows: int, classes: int | None, more: dict[str, Any], problem: dict[str, str]
) -> None:
    unet = {"block_out_channels": [8], "norm_num_groups": 4, "num_class_embeds": rows}
    case = Case("diffusers-unet2d.v1", {"unet": unet, **more}, size=8, num_classes=classes)
    with raises(SpecError, "spec", problems=problem):
        case.make()


def test_labels_of_the_data_and_of_the_source(tmp_path: Path) -> None:
    save_pipeline(tmp_path / "plain")
    assert stage_from(tmp_path / "plain", num_classes=5).labels is None
    with raises_config("conditional", "source-without-labels"):
        stage_from(tmp_path / "plain", num_classes=5, conditional=True)
    save_pipeline(tmp_path / "classes", num_class_embeds=5)
    stage = stage_from(tmp_path / "classes", num_classes=5)
    labels = torch.tensor([1, 2])
    with raises(SampleError, "sample-guidance-untrained"):
        stage.sample(None, request(labels=labels, guidance=2.0))
    with raises(SampleError, "sample-labels-missing"):
        stage.sample(None, request())


def request(**more: Any) -> SampleRequest:
    return SampleRequest(2, ImageDraw(0, "s", 0, 2), **more)


@pytest.mark.parametrize(
    ("options", "code", "fields"),
    [
        ({"sampler": "nonsense"}, "sampler-unknown", {"name": "nonsense"}),
        ({"steps": 0}, "steps-out-of-range", {"steps": 0, "least": 1, "most": 20}),
        ({"steps": 21}, "steps-out-of-range", {"steps": 21, "least": 1, "most": 20}),
        (
            {"sampler": "dpmpp-2m", "steps": 20},
            "steps-out-of-range",
            {"steps": 20, "least": 1, "most": 19},
        ),
        ({"sampler": "pndm", "steps": 3}, "steps-out-of-range", {"steps": 3, "least": 4}),
        ({"options": {"eta": 0.5}}, "eta-without-ddim", {"name": "ddpm"}),
        ({"sampler": "ddim", "options": {"eta": 2}}, "fraction-invalid", {"name": "eta"}),
        ({"guidance": 2.0}, "guidance-without-labels", {}),
        ({"guidance": -1.0}, "guidance-invalid", {"value": -1.0}),
    ],
)
def test_unsupported_requests_are_rejected(
    folder: Path, options: dict[str, Any], code: str, fields: dict[str, Any]
) -> None:
    with raises(SampleError, f"sample-{code}", **fields):
        stage_from(folder).sample(None, request(**options))


def test_a_sampler_that_does_not_support_the_model_is_rejected() -> None:
    unet = {"block_out_channels": [8], "norm_num_groups": 4, "attention_head_dim": 4}
    scheduler = {"prediction_type": "sample"}
    case = Case("diffusers-unet2d.v1", {"unet": unet, "scheduler": scheduler}, num_classes=None)
    with raises(SampleError, "sample-sampler-unsupported", name="pndm"):
        case.make().sample(None, request(sampler="pndm"))


@pytest.mark.parametrize(("name", "states"), [("ddpm", 5), ("euler", 5), ("heun", 9)])
def test_states_are_shown_at_the_scale_of_images(folder: Path, name: str, states: int) -> None:
    seen: list[float] = []

    def watch(image: torch.Tensor) -> None:
        seen.append(float(image.std()))

    stage = stage_from(folder)
    with torch.no_grad():
        stage.sample(None, request(sampler=name, steps=5, watch=watch))
    assert len(seen) == states
    # The first states are noise; at the scale of its own, euler starts at a deviation above 4.
    assert seen[0] < 2
