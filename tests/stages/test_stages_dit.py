"""``dit.v1`` and ``dit-sr.v1``: their configs, costs, and that they learn."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import pytest
import torch
from errors_help import raises
from pydantic import ValidationError
from stage_cases import CLASSES, ENTRIES, SMALL, train
from torch.utils.flop_counter import FlopCounterMode

from cascadezoo.build.match_parameters import match_parameters
from cascadezoo.build.plan import make_plan
from cascadezoo.configs import DiTConfig, DiTSRConfig
from cascadezoo.errors import SpecError
from cascadezoo.nn.dit import FREQUENCIES
from cascadezoo.spec import load_spec
from cascadezoo.spec.configs import ConfigError, ImageShape
from cascadezoo.stages.base import TrainContext
from cascadezoo.util.rng import Draw


def spec(kind: str, config: dict[str, Any], size: int = 16) -> dict[str, Any]:
    stages = [{"name": "it", "kind": kind, "config": config}]
    if ENTRIES[kind].role == "upsampler":
        stages.insert(0, {"name": "before", "kind": "flow.v1", "config": {"channels": 8}})
    return {
        "name": "dit",
        "data": {"source": "shapes", "config": {"size": size}},
        "stages": stages,
        "training": {"losses": []},
        "evaluation": {"extractor": "small"},
    }


# --- configs


def test_sizes_that_patches_do_not_tile_are_refused_with_their_path() -> None:
    with pytest.raises(ConfigError, match="is 2, which does not divide 15 pixels") as caught:
        DiTConfig().fit(ImageShape(3, 15))
    assert (caught.value.field, caught.value.code) == ("patch_size", "not-divisible")
    with raises(SpecError, "spec", problems={"stages.0.config.patch_size": "not-divisible"}):
        load_spec(spec("dit.v1", {"patch_size": 3}))
    with raises(SpecError, "spec", problems={"stages.1.config.patch_size": "not-divisible"}):
        load_spec(spec("dit-sr.v1", {"patch_size": 5}))


@pytest.mark.parametrize("config", [DiTConfig, DiTSRConfig])
def test_heads_and_features_that_do_not_fit_are_refused(config: type[DiTConfig]) -> None:
    with pytest.raises(ValidationError, match="is 3, which does not divide 128 features"):
        config(heads=3)
    with pytest.raises(ValidationError, match="multiple of 4"):
        config(features=126, heads=2)
    assert config(features=60, heads=6).width_step("features") == 12


def test_too_many_patches_are_advised_against() -> None:
    assert not list(DiTConfig().advice(ImageShape(3, 32), None))
    (advice,) = DiTConfig().advice(ImageShape(3, 256), None)
    assert "16,384 patches" in advice


def test_the_configs_need_no_torch() -> None:
    code = (
        "import sys\nfrom cascadezoo.configs import DiTConfig, DiTSRConfig\n"
        "DiTConfig(), DiTSRConfig()\n"
        "assert not {'torch', 'timm', 'numpy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- costs


def test_flops_of_the_plan_are_those_that_torch_counts_and_those_of_the_formula() -> None:
    width, blocks, patch = 16, 3, 2
    config = {"features": width, "blocks": blocks, "heads": 2, "patch_size": patch}
    (row,) = make_plan(load_spec(spec("dit.v1", config)), "cpu").stages
    case = dataclasses.replace(SMALL["dit.v1"], size=16, settings={**config, "steps": 3})
    network = case.stage().network
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, 16, 16), torch.zeros(1), torch.zeros(1, dtype=torch.int64))
    assert row.flops_forward == counter.get_total_flops()
    tokens = (16 // patch) ** 2
    products = (
        # queries, keys and values, output, perceptron; scores and mixing; modulation
        blocks * (tokens * (4 + 8) * width**2 + 2 * tokens**2 * width + 6 * width**2)
        + 2 * tokens * width * 3 * patch**2  # patches to tokens and back
        + 2 * width**2  # the last modulation
        + FREQUENCIES * width
        + width**2  # the embedding of the time
    )
    assert row.flops_forward == 2 * products
    # 25 steps of two evaluations, for the guidance.
    assert row.flops_sample == 50 * row.flops_forward


@pytest.mark.parametrize(("kind", "count"), [("dit.v1", 300_000), ("dit-sr.v1", 300_000)])
def test_a_number_of_parameters_is_matched_by_the_width(kind: str, count: int) -> None:
    data = match_parameters(spec(kind, {"blocks": 2}), {"it": count})
    config = data["stages"][-1]["config"]
    assert config["features"] % 4 == 0
    parameters = make_plan(load_spec(data), "cpu").stages[-1].parameters
    assert abs(parameters - count) <= 0.1 * count


# --- learning


@pytest.mark.parametrize("kind", ["dit.v1", "dit-sr.v1"])
def test_it_starts_at_zero_and_learns(kind: str) -> None:
    case = SMALL[kind]
    stage = case.stage(fresh=True)
    x, times = torch.randn(2, 3, case.size, case.size), torch.full((2,), 500.0)
    labels = torch.tensor([0, CLASSES])
    conditions = (torch.randn_like(x), torch.zeros(2)) if kind == "dit-sr.v1" else ()
    assert not stage.network(x, times, labels, *conditions).any()
    optimizer = torch.optim.Adam(stage.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        output = train(stage, case)  # the same images, noise and times
        loss = output.losses["velocity"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_the_upsampler_starts_as_the_interpolation() -> None:
    """Its estimate is the enlarged image plus the residual of a velocity of zero."""
    case = dataclasses.replace(
        SMALL["dit-sr.v1"], settings={**SMALL["dit-sr.v1"].settings, "augmentation": "none"}
    )
    stage = case.stage(fresh=True)
    upstream = case.upstream(4)
    context = TrainContext(Draw(0, "start"), labels=case.labels(4))
    inputs = stage.preprocess(case.target(4), upstream, context)
    estimate = stage(inputs).estimate
    enlarged = stage.enlarged(upstream)
    scale = stage.config.residual_scale
    assert torch.allclose(estimate, (enlarged + scale * inputs.noisy).clamp(-1, 1), atol=1e-6)
