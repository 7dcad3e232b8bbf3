"""``flow-sr.v2``: a flow of the residual to the enlarged upstream image."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from errors_help import raises
from stage_cases import SMALL, Case, request, train

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.diffusion.flow import SOLVERS
from cascadezoo.errors import SampleError, SpecError
from cascadezoo.stages.base import SampleRequest, Stage, TrainContext
from cascadezoo.util.rng import Draw, ImageDraw

SCALE = 0.2
CASE = Case("flow-sr.v2", {"channels": 8, "residual_scale": SCALE, "interpolation": "bicubic"})


def oracle(stage: Stage, case: Case, target: torch.Tensor, upstream: torch.Tensor) -> None:
    """Replace the network by one that knows the target.

    On the straight path x = (1 - t) z + t e to the residual z, the velocity is (x - z) / t.
    """
    residual = (target - stage.enlarged(upstream)) / SCALE  # type: ignore[operator]

    def exact(x: torch.Tensor, times: torch.Tensor, *conditions: Any) -> torch.Tensor:
        return (x - residual) / (times / 1000).view(-1, 1, 1, 1)

    stage.network = torch.nn.Module()
    stage.network.forward = exact  # type: ignore[method-assign]


def images(count: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    target, upstream = CASE.target(count), CASE.upstream(count)
    assert upstream is not None
    return target, upstream


@pytest.mark.parametrize("sampler", ["euler", "midpoint"])
@torch.no_grad()
def test_the_exact_velocity_gives_the_target(sampler: str) -> None:
    stage, (target, upstream) = CASE.stage().eval(), images()
    oracle(stage, CASE, target, upstream)
    sampled = stage.sample(upstream, request(CASE, 0, 4, sampler=sampler, guidance=1.0, steps=4))
    assert torch.allclose(sampled, target, rtol=0, atol=1e-5)


def test_the_exact_velocity_has_no_loss_and_estimates_the_target() -> None:
    case = dataclasses.replace(CASE, settings={**CASE.settings, "augmentation": "none"})
    stage, (target, upstream) = case.stage(), images()
    oracle(stage, case, target, upstream)
    context = TrainContext(Draw(0), labels=case.labels(4))
    output = stage(stage.preprocess(target, upstream, context))
    assert output.losses["velocity"].item() < 1e-8
    assert torch.allclose(output.estimate, target, rtol=0, atol=1e-4)


@torch.no_grad()
def test_an_untrained_network_adds_noise_of_the_residuals_scale() -> None:
    """Its velocity is zero, so the noise that the flow starts from stays."""
    stage = CASE.stage(fresh=True).eval()
    upstream = torch.linspace(-0.2, 0.2, 36).view(1, 1, 6, 6).expand(60, 3, 6, 6)
    added = stage.sample(upstream, request(CASE, 0, 60)) - stage.enlarged(upstream)
    assert added.mean().abs() < 0.01
    assert added.std().item() == pytest.approx(SCALE, rel=0.03)


def test_the_untrained_loss_is_one_plus_the_variance_of_the_scaled_residual() -> None:
    stage, (target, upstream) = CASE.stage(fresh=True), images(64)
    case = dataclasses.replace(CASE, settings={**CASE.settings, "augmentation": "none"})
    stage = case.stage(fresh=True)
    residual = (target - stage.enlarged(upstream)) / SCALE
    loss = train(stage, case, count=64).losses["velocity"]
    assert loss.item() == pytest.approx(1 + residual.square().mean().item(), rel=0.03)


def test_the_residual_includes_the_noise_of_the_augmentation() -> None:
    """What the condition has too much of is learned as well, so sampling can take it away."""
    stage, (target, upstream) = CASE.stage(), images()
    inputs = stage.preprocess(target, upstream, TrainContext(Draw(0), labels=CASE.labels(4)))
    condition = inputs.extra["condition"]
    assert (condition - stage.enlarged(upstream)).abs().max() > 0.05
    assert torch.allclose(condition + SCALE * inputs.target, target, rtol=0, atol=1e-6)


@torch.no_grad()
def test_images_are_bounded_and_latents_are_not() -> None:
    _, upstream = images()
    sample_request = request(CASE, 0, 4)
    assert CASE.stage(fresh=True).eval().sample(4 * upstream, sample_request).abs().max() == 1
    latent = dataclasses.replace(CASE, latent=True).stage(fresh=True).eval()
    assert latent.sample(4 * upstream, sample_request).abs().max() > 2


@torch.no_grad()
def test_watchers_see_images_that_end_on_the_result() -> None:
    stage, (target, upstream) = CASE.stage().eval(), images()
    oracle(stage, CASE, target, upstream)
    seen: list[torch.Tensor] = []
    sample_request = request(CASE, 0, 4, guidance=1.0, steps=5)
    sample_request.watch = lambda image: seen.append(image.clone())
    sampled = stage.sample(upstream, sample_request)
    errors = [(image - target).square().mean().item() for image in seen]
    assert len(seen) == 5
    assert errors == sorted(errors, reverse=True)
    assert torch.equal(seen[-1], sampled)
    assert all(image.abs().max() <= 1 for image in seen)


def cascade_spec(**last: Any) -> dict[str, Any]:
    unet = {"channels": 8, "multipliers": [1], "steps": 2}
    return {
        "name": "three",
        "data": {"source": "shapes", "config": {"size": 32}},
        "stages": [
            {"name": "coarse", "kind": "flow.v1", "config": {"size": 8, **unet}},
            {"name": "up", "kind": "flow-sr.v2", "config": unet},
            {"name": "fine", "kind": "flow-sr.v1", "config": {**unet, "s": 0.2, **last}},
        ],
        "training": {
            "losses": [],
            "phases": [{"name": "all", "train": ["coarse", "up", "fine"], "steps": 1}],
        },
        "evaluation": {"metrics": [], "extractor": "small"},
    }


def test_a_stage_after_it_cannot_be_truncated() -> None:
    with raises(SpecError, "spec", problems={"stages.2.config.truncated": "no-stop"}):
        Cascade.from_spec(cascade_spec(truncated=True))
    cascade = Cascade.from_spec(cascade_spec()).eval()
    with raises(SampleError, "sample-option-unheeded-upstream"):
        cascade.sample(1, options={"truncated": {"fine": True}})
    # It itself may be: the flow before it stops.
    assert cascade.sample(1, options={"truncated": {"up": True}, "s": {"up": 0.2}}).shape[-1] == 32


def test_stopping_is_rejected() -> None:
    stage, (_, upstream) = CASE.stage().eval(), images(1)
    assert "stop" not in stage.sampling_options
    sample_request = SampleRequest(1, ImageDraw(0, "s", 0, 1), options={"stop": 0.5})
    with raises(SampleError, "sample-stop-residual"):
        stage.sample(upstream, sample_request)


def test_v1_is_unchanged() -> None:
    """Published weights of ``flow-sr.v1`` go on meaning a flow of the image itself."""
    case = SMALL["flow-sr.v1"]
    stage, (target, upstream) = case.stage(), images()
    inputs = stage.preprocess(target, upstream, TrainContext(Draw(0), labels=case.labels(4)))
    assert torch.equal(inputs.target, target)
    assert "stop" in stage.sampling_options
    assert not hasattr(stage.config, "residual_scale")
    assert set(SOLVERS) == {"euler", "heun", "midpoint"}
