"""Plans of long networks: extrapolated exactly, bounded, or refused; memory before training."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from errors_help import raises
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from cascadezoo import build_cascade
from cascadezoo.build.plan import Plan, check_activations, check_memory, make_plan
from cascadezoo.cascade.stage_costs import StagePlan, meta_cascade, plan_stages
from cascadezoo.errors import ResourceError
from cascadezoo.spec import load_spec
from cascadezoo.spec.advice import size_warnings
from cascadezoo.stages.base import TrainContext
from cascadezoo.util.rng import Draw

GENERATORS = {"flow.v1", "resnet.v1", "dae.v1", "unet-diffusion.v1", "diffusion.v1", "diffusion.v2"}
UNET = {"channels": 8, "multipliers": [1, 2]}


def spec(kind: str, config: dict[str, Any], size: int = 16, **data: Any) -> dict[str, Any]:
    stages = [{"name": "last", "kind": kind, "config": config}]
    if kind not in GENERATORS:
        stages.insert(0, {"name": "first", "kind": "flow.v1", "config": UNET})
    return {
        "name": "long",
        "data": {"source": "shapes", "config": {"size": size}, **data},
        "stages": stages,
        "training": {"losses": []},
    }


def last(data: dict[str, Any]) -> StagePlan:
    resolved = load_spec(data)
    return list(plan_stages(resolved, meta_cascade(resolved)))[-1]


@pytest.mark.parametrize("many", [3, 5])
@pytest.mark.parametrize(
    ("kind", "config", "fields"),
    [
        ("flow.v1", {**UNET, "attention": [8], "dense_skips": True}, ["blocks"]),
        ("flow.v1", {**UNET, "attention": [16], "label_conditioning": "concat"}, ["blocks"]),
        ("dae.v1", {**UNET, "middle_attention": True}, ["blocks"]),
        ("unet-diffusion.v1", UNET, ["blocks"]),
        ("diffusion-sr.v1", UNET, ["blocks"]),
        ("autoencoder.v1", {"channels": 8}, ["blocks"]),
        ("resnet.v1", {"channels": 8}, ["blocks", "candidates"]),
        ("resnet.v1", {"channels": 8, "dropout": 0.1}, ["candidates"]),
        ("resnet-refiner.v1", {"hidden": 8}, ["blocks"]),
        ("resnet-upsampler.v1", {"hidden": 8}, ["blocks", "fine_blocks"]),
        ("pixelshuffle.v1", {"hidden": 8}, ["blocks"]),
        ("transposed.v1", {"hidden": 8}, ["blocks"]),
        ("conv-refiner.v1", {"hidden": 8}, ["layers"]),
        ("vit.v1", {"features": 8, "heads": 2}, ["blocks"]),
        ("dit-sr.v1", {"features": 8, "heads": 2}, ["blocks"]),
    ],
)
def test_the_cost_of_repeated_parts_is_that_of_a_full_trace(
    kind: str,
    config: dict[str, Any],
    fields: list[str],
    many: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = spec(kind, {**config, **dict.fromkeys(fields, many + 1)})
    declared = type(load_spec(data).stages[-1].config).repeated
    assert set(fields) <= set(declared)
    short = last(data)
    owner = next(
        c for c in type(load_spec(data).stages[-1].config).__mro__ if "repeated" in vars(c)
    )
    monkeypatch.setattr(owner, "repeated", {})
    assert last(data) == short
    assert short.flops_forward


def test_flops_are_those_of_pytorch() -> None:
    resolved = load_spec(spec("flow.v1", {**UNET, "attention": [8]}))
    cascade = meta_cascade(resolved)
    (row,) = plan_stages(resolved, cascade)
    stage = cascade.stage("last")
    labels = torch.zeros(1, dtype=torch.int64, device="meta")
    counter = FlopCounterMode(display=False)
    with counter:
        target = torch.empty(1, 3, 16, 16, device="meta")
        stage(stage.preprocess(target, None, TrainContext(Draw(0, device="meta"), labels)))
    assert row.flops_forward == counter.get_total_flops()


def test_a_thousand_candidates_of_many_blocks_are_planned() -> None:
    began = time.process_time()
    row = last(spec("resnet.v1", {"channels": 8, "candidates": 1024, "blocks": 256}))
    one = last(spec("resnet.v1", {"channels": 8, "candidates": 1, "blocks": 256}))
    assert row.flops_forward == 1025 * one.flops_forward
    assert row.flops_sample == one.flops_sample
    assert row.activation_bytes == one.activation_bytes
    assert time.process_time() - began < 20


@pytest.mark.parametrize("levels", [4, 8])
def test_networks_of_too_many_layers_are_refused(levels: int) -> None:
    config = {"channels": 4, "multipliers": [1] * levels, "blocks": 256}
    with raises(ResourceError, "resources-layers", name="long"):
        make_plan(load_spec(spec("flow.v1", config, size=256)), "cpu")


def test_operations_over_the_budget_leave_stages_untraced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cascadezoo.cascade.stage_costs.MOST_OPERATIONS", 50)
    plan = make_plan(load_spec(spec("diffusion.v1", {"layers": 64})), "cpu")
    assert plan.stages[0].flops_forward is None
    assert any("last" in warning for warning in plan.warnings)


# --- memory


@pytest.mark.parametrize("size", [(1280, 900), (700, 700), (130, 400)])
def test_large_pictures_are_warned_of(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size).save(tmp_path / "a.png")
    data = spec("flow.v1", {})
    data["data"] = {"source": "folder", "config": {"path": str(tmp_path)}}
    (warning,) = size_warnings(load_spec(data))
    assert f"{min(size)}x{min(size)}" in warning
    data["data"]["size"] = 64
    assert list(size_warnings(load_spec(data))) == []


def test_latents_and_upsampled_images_are_not_warned_of() -> None:
    up = spec("pixelshuffle.v1", {"hidden": 8, "factor": 2}, size=512)
    assert list(size_warnings(load_spec(up)))
    up["stages"][1]["config"]["factor"] = 8
    assert list(size_warnings(load_spec(up))) == []
    latents = spec("autoencoder.v1", {"channels": 8}, size=512)
    assert list(size_warnings(load_spec(latents))) == []


@pytest.mark.parametrize("batch_size", [128, 1_000_000])
def test_build_refuses_activations_that_cannot_fit(tmp_path: Path, batch_size: int) -> None:
    Image.new("RGB", (1280, 900)).save(tmp_path / "a.png")
    data = spec("flow.v1", {"channels": 256})
    data["data"] = {"source": "folder", "config": {"path": str(tmp_path)}}
    data["evaluation"] = {"metrics": []}
    data["training"]["batch_size"] = batch_size
    plan = make_plan(load_spec(data), "cpu")
    assert plan.training_bytes > plan.available_bytes
    assert sum("training needs" in warning for warning in plan.warnings) == 1
    with raises(ResourceError, "resources-activations", name="long", stage="last") as caught:
        build_cascade(data, tmp_path / "run", device="cpu")
    assert caught.value.fields["needed"] > plan.available_bytes
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def too_large() -> tuple[dict[str, Any], Plan]:
    """A spec whose batch needs 8 to 16 times the memory of this machine, and its plan."""
    data = spec("flow.v1", {"channels": 16, "multipliers": [1, 1], "blocks": 4}, size=16)
    data["training"] |= {"phases": [{"name": "all", "train": ["last"], "steps": 1}]}
    small = make_plan(load_spec(data), "cpu")
    one = small.stages[0].activation_bytes
    data["training"]["batch_size"] = 8 * 2 ** (small.available_bytes // one).bit_length()
    return data, make_plan(load_spec(data), "cpu")


def offered(plan: Plan, **devices: Any) -> list[list[str]]:
    """The settings that the error of too little memory offers."""
    with raises(ResourceError, "resources-activations") as caught:
        check_activations(plan, **devices)
    hint = (caught.value.hint or "").partition(";")[0]
    assert hint.startswith("set ")
    return [row.split(" and ") for row in hint.removeprefix("set ").split(", or ")]


def test_each_offered_setting_fits(too_large: tuple[dict[str, Any], Plan]) -> None:
    data, plan = too_large
    options = offered(plan)
    # Recomputed activations need fewer parts.
    (parts,), (fewer, recompute) = options
    assert recompute == "training.recompute=true"
    assert 1 < int(fewer.partition("=")[2]) < int(parts.partition("=")[2])
    for settings in options:
        fitting = make_plan(load_spec(data, settings=settings), "cpu")
        assert fitting.training_bytes <= fitting.available_bytes
        check_activations(fitting)


def test_recomputed_activations_are_offered_alone_if_parts_do_not_suffice(
    too_large: tuple[dict[str, Any], Plan],
) -> None:
    data, plan = too_large
    batch_size, (row,) = data["training"]["batch_size"], plan.stages
    state = plan.training_bytes - batch_size * row.activation_bytes
    tight = state + plan.recomputed_bytes["last"]
    assert plan.recomputed_bytes["last"] < row.activation_bytes
    (settings,) = offered(replace(plan, available_bytes=tight))
    assert settings == [f"training.accumulate={batch_size}", "training.recompute=true"]
    # Each of two devices has half of the images.
    (settings,) = offered(replace(plan, available_bytes=tight), processes=2)
    assert settings == [f"training.accumulate={batch_size // 2}", "training.recompute=true"]
    # A network that must be compiled cannot be recomputed.
    compiled = load_spec(data, settings=["training.compile=network"])
    assert make_plan(compiled, "cpu").recomputed_bytes is None


def test_dividing_the_weights_is_offered_if_it_suffices() -> None:
    plan = replace(make_plan(load_spec(spec("flow.v1", {}))), available_bytes=None)
    room = 3 * plan.weights_bytes
    small = replace(plan, available_bytes=room)
    with raises(ResourceError, "resources-training") as caught:
        check_memory(small, processes=4)
    assert "training.parallel=fsdp" in (caught.value.hint or "")
    check_memory(small, processes=4, divided=True)
    for settings in ({}, {"processes": 1, "divided": True}):
        with raises(ResourceError, "resources-training") as caught:
            check_memory(small, **settings)
        assert "fsdp" not in (caught.value.hint or "")
    # The whole weights must fit on each device in any case.
    with raises(ResourceError, "resources-training"):
        check_memory(
            replace(plan, available_bytes=plan.weights_bytes - 1), processes=99, divided=True
        )


def test_weights_that_do_not_fit_without_any_training() -> None:
    data = spec("flow.v1", {"channels": 65536, "multipliers": [1]})
    data["training"] = {"losses": [], "phases": []}
    made = make_plan(load_spec(data))
    assert made.phases == []
    assert made.training_bytes == made.weights_bytes > 1e12
    assert [text for text in made.warnings if text.startswith("the weights need about")]
