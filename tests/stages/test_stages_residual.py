"""``pixelshuffle.v1`` and ``vit.v1``: residuals to an interpolation."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from stage_cases import SMALL, Case, request, train

from cascadezoo.stages.base import StageInputs, TrainContext, downsample
from cascadezoo.util.rng import Draw

UPSAMPLER, REFINER = SMALL["pixelshuffle.v1"], SMALL["vit.v1"]


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
@pytest.mark.parametrize("mode", ["bicubic", "bilinear", "nearest"])
def test_an_untrained_upsampler_is_the_interpolation(factor: int, mode: str) -> None:
    settings = {"hidden": 16, "factor": factor, "interpolation": mode}
    case = Case("pixelshuffle.v1", settings, size=24)
    stage = case.stage(fresh=True)
    upstream = case.upstream(2)
    assert upstream is not None
    wanted = F.interpolate(upstream, scale_factor=factor, mode=mode)
    assert wanted.shape == (2, 3, 24, 24)
    assert torch.equal(train(stage, case, count=2).estimate, wanted)
    images = stage.sample(upstream, request(case, 0, 2))
    assert torch.equal(images, wanted.clamp(-1, 1))


def test_an_untrained_refiner_changes_nothing() -> None:
    stage, upstream = REFINER.stage(fresh=True), REFINER.upstream(2)
    assert upstream is not None
    assert torch.equal(train(stage, REFINER, count=2).estimate, upstream)
    assert torch.equal(stage.sample(upstream, request(REFINER, 0, 2)), upstream)


@pytest.mark.parametrize("case", [UPSAMPLER, REFINER], ids=str)
def test_the_residual_is_scaled(case: Case) -> None:
    def residual(scale: float) -> torch.Tensor:
        stage: Any = dataclasses.replace(
            case, settings={**case.settings, "residual_scale": scale}
        ).stage()
        upstream = case.upstream(2)
        return stage(StageInputs(case.target(2), upstream)).estimate - stage.base(upstream)

    assert torch.allclose(residual(0.25), 0.25 * residual(1.0), rtol=0, atol=1e-6)
    assert residual(1.0).abs().max() > 1e-3


@pytest.mark.parametrize("case", [UPSAMPLER, REFINER], ids=str)
def test_latents_are_never_clamped(case: Case) -> None:
    upstream = case.upstream(2)
    assert upstream is not None
    pixels = case.stage(fresh=True).sample(4 * upstream, request(case, 0, 2))
    assert pixels.abs().max() == 1
    latents = dataclasses.replace(case, latent=True).stage(fresh=True)
    assert latents.sample(4 * upstream, request(case, 0, 2)).abs().max() > 2


@pytest.mark.parametrize("case", [UPSAMPLER, REFINER], ids=str)
def test_an_upstream_image_is_needed(case: Case) -> None:
    stage = case.stage()
    with pytest.raises(TypeError, match=type(stage).__name__):
        stage(StageInputs(case.target(2)))


def test_the_refiner_looks_beyond_its_patches() -> None:
    stage, upstream = REFINER.stage(), REFINER.upstream(1)
    assert upstream is not None
    upstream.requires_grad_()
    train(stage, REFINER, count=1, upstream=upstream).estimate[0, :, 0, 0].sum().backward()
    assert upstream.grad is not None
    assert upstream.grad[0, :, 11, 11].abs().min() > 0


def test_many_tokens_give_what_few_tokens_math_gives() -> None:
    """The kernel of attention is chosen by the number of tokens; the result must not be."""
    case = Case("vit.v1", {"features": 32, "heads": 4, "patch_size": 2}, size=20)
    stage: Any = case.stage().eval()
    fused = [block.attn.fused_attn for block in stage.network.blocks]
    assert fused == [True, True]
    upstream = case.upstream(2)
    wanted = stage.sample(upstream, request(case, 0, 2))
    for block in stage.network.blocks:
        block.attn.fused_attn = False
    assert torch.allclose(stage.sample(upstream, request(case, 0, 2)), wanted, rtol=0, atol=1e-5)
    small: Any = REFINER.stage()
    assert [block.attn.fused_attn for block in small.network.blocks] == [False, False]


def stripes(count: int, step: int) -> torch.Tensor:
    """Sharp stripes at random phase, which an interpolation blurs."""
    phase = Draw(3, step).rand(count, 1, 1, 1) * 8
    columns = torch.arange(16.0).view(1, 1, 1, 16)
    return torch.sign(torch.sin((columns + phase) * 2 * torch.pi / 8)).expand(count, 1, 16, 16)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("pixelshuffle.v1", {"hidden": 32}), ("vit.v1", {"features": 32, "heads": 4})],
)
def test_training_beats_the_interpolation(kind: str, settings: dict[str, Any]) -> None:
    case = Case(kind, settings, size=16, channels=1, num_classes=None)
    stage = case.stage(fresh=True)
    optimizer = torch.optim.AdamW(stage.parameters(), lr=3e-3)
    losses = []
    for step in range(150):
        target = stripes(16, step)
        coarse = downsample(target, 8)
        upstream = (
            coarse
            if kind == "pixelshuffle.v1"
            else F.interpolate(coarse, scale_factor=2, mode="bicubic")
        )
        output = stage(stage.preprocess(target, upstream, TrainContext(Draw(0, step))))
        optimizer.zero_grad()
        output.losses["mse"].backward()
        optimizer.step()
        losses.append(output.losses["mse"].item())
    interpolation = sum(losses[:3]) / 3
    assert sum(losses[-10:]) / 10 < 0.5 * interpolation
