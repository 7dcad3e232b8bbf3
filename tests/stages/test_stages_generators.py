"""``flow.v1`` and ``diffusion.v1``: requests, prices, latents, and that they learn."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from errors_help import raises
from stage_cases import SMALL, Case, request, train

from cascadezoo.errors import SampleError
from cascadezoo.spec.configs import ImageShape
from cascadezoo.stages.base import Stage, TrainContext
from cascadezoo.stages.diffusion.config import DiffusionConfig
from cascadezoo.stages.flow.config import FlowConfig
from cascadezoo.util.rng import Draw

FLOW, DIFFUSION, UNET = SMALL["flow.v1"], SMALL["diffusion.v1"], SMALL["unet-diffusion.v1"]
generators = pytest.mark.parametrize("case", [FLOW, DIFFUSION, UNET], ids=str)


def with_settings(case: Case, **settings: Any) -> Case:
    return dataclasses.replace(case, settings={**case.settings, **settings})


def count_evaluations(stage: Stage, case: Case, **options: Any) -> float:
    """Forwards of the network per image."""
    images = 0

    def hook(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        nonlocal images
        images += len(args[0])

    network: Any = stage.network
    handle = network.register_forward_pre_hook(hook)
    stage.sample(None, request(case, 0, 2, **options))
    handle.remove()
    return images / 2


def test_the_default_flow_has_about_850_thousand_parameters() -> None:
    stage = Case("flow.v1", size=16, num_classes=8).stage()
    assert sum(p.numel() for p in stage.parameters()) == pytest.approx(850_000, rel=0.03)


@generators
@pytest.mark.parametrize("steps", [None, 1, 5])
@pytest.mark.parametrize("guidance", [None, 0.0, 1.0, 2.5])
def test_network_evaluations_equals_the_calls_in_sampling(
    case: Case, steps: int | None, guidance: float | None
) -> None:
    stage = case.stage()
    counted = count_evaluations(stage, case, steps=steps, guidance=guidance)
    assert stage.network_evaluations(steps, guidance) == counted


@generators
def test_network_evaluations_without_labels(case: Case) -> None:
    case = dataclasses.replace(case, num_classes=None)
    stage = case.stage()
    assert stage.network_evaluations() == count_evaluations(stage, case)


@generators
def test_guidance_of_one_batch_is_that_of_two(case: Case) -> None:
    stage, scale = case.stage(), 3.0
    network: Any = stage.network
    x, times = Draw(0).randn(4, 3, 12, 12), torch.full((4,), 3.0)
    labels = torch.arange(4)
    predict: Any = stage
    guided = predict.predictor(request(case, 0, 4, labels=labels, guidance=scale))(x, 3.0, 0.5)
    conditional = network(x, times, labels)
    unconditional = network(x, times, torch.full_like(labels, 5))
    wanted = unconditional + scale * (conditional - unconditional)
    assert torch.allclose(guided, wanted, rtol=0, atol=1e-5)


@generators
def test_labels_and_guidance_change_the_images(case: Case) -> None:
    stage = case.stage()
    labels = torch.tensor([0, 1])

    def images(**options: Any) -> torch.Tensor:
        return stage.sample(None, request(case, 0, 2, **options))

    conditional = images(labels=labels, guidance=1.0)
    unconditional = images(labels=None)
    assert torch.allclose(images(labels=labels, guidance=0.0), unconditional, rtol=0, atol=1e-5)
    for other in (
        images(labels=labels.flip(0), guidance=1.0),
        images(labels=labels, guidance=4.0),
        unconditional,
    ):
        assert (conditional - other).abs().max() > 1e-3


@generators
@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"steps": 0}, {"code": "sample-steps-invalid", "steps": 0}),
        ({"sampler": "magic"}, {"code": "sample-sampler-unknown", "name": "magic"}),
        ({"guidance": -1.0}, {"code": "sample-guidance-invalid", "value": -1.0}),
        ({"guidance": float("nan")}, {"code": "sample-guidance-invalid"}),
        ({"labels": None, "guidance": 2.0}, {"code": "sample-guidance-without-labels"}),
    ],
)
def test_unsupported_requests_are_rejected(
    case: Case, options: dict[str, Any], error: dict[str, object]
) -> None:
    with raises(SampleError, **error) as caught:
        case.stage().sample(None, request(case, 0, 2, **options))
    assert caught.value.hint


@generators
def test_a_model_without_labels_takes_neither_labels_nor_guidance(case: Case) -> None:
    case = dataclasses.replace(case, num_classes=None)
    stage = case.stage()
    with raises(SampleError, "sample-no-labels"):
        stage.sample(None, request(case, 0, 2, labels=torch.tensor([0, 1])))
    with raises(SampleError, "sample-guidance-without-labels"):
        stage.sample(None, request(case, 0, 2, guidance=2.0))


def test_an_unconditional_model_ignores_labels_but_not_guidance() -> None:
    stage = (case := with_settings(FLOW, conditional=False)).stage()
    images = stage.sample(None, request(case, 0, 2))
    assert torch.equal(images, stage.sample(None, request(case, 0, 2, labels=None)))
    with raises(SampleError, "sample-guidance-without-labels"):
        stage.sample(None, request(case, 0, 2, guidance=2.0))


def test_diffusion_takes_no_more_steps_than_it_was_trained_with() -> None:
    with raises(SampleError, "sample-steps-too-many", steps=7, most=6):
        DIFFUSION.stage().sample(None, request(DIFFUSION, 0, 2, steps=7))


def test_eta_belongs_to_ddim() -> None:
    stage = DIFFUSION.stage()

    def images(sampler: str, **options: Any) -> torch.Tensor:
        return stage.sample(None, request(DIFFUSION, 0, 2, sampler=sampler, options=options))

    plain = images("ddim")
    assert torch.equal(plain, images("ddim", eta=0.0))
    assert (plain - images("ddim", eta=0.8)).abs().max() > 1e-3
    with raises(SampleError, "sample-eta-without-ddim", name="ddpm"):
        images("ddpm", eta=0.5)
    for wrong in (-0.1, 1.5, float("nan"), "all", True):
        with raises(SampleError, "sample-fraction-invalid", name="eta"):
            images("ddim", eta=wrong)


@generators
def test_latents_are_never_clamped(case: Case) -> None:
    case = dataclasses.replace(case, latent=True)
    stage = case.stage()
    with torch.no_grad():
        for parameter in stage.network.head.parameters():  # type: ignore[union-attr,operator]
            parameter.mul_(20)
    assert train(stage, case).estimate.abs().max() > 1.5
    assert stage.sample(None, request(case, 0, 4)).abs().max() > 1.5


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
def test_a_perfect_diffusion_network_estimates_its_target(prediction: str) -> None:
    case = with_settings(DIFFUSION, prediction=prediction, schedule="cosine", timesteps=40)
    stage, target = case.stage(), case.target(4)
    inputs = stage.preprocess(target, None, TrainContext(Draw(0), labels=case.labels(4)))
    rates: Any = stage.rates
    alpha, sigma = (column.view(-1, 1, 1, 1) for column in rates[inputs.times].unbind(1))
    assert inputs.noise is not None
    perfect = {
        "eps": inputs.noise,
        "x0": target,
        "v": alpha * inputs.noise - sigma * target,
    }[prediction]
    stage.network = torch.nn.Module()
    stage.network.forward = lambda x, times, labels: perfect  # type: ignore[method-assign]
    output = stage(inputs)
    assert output.losses["mse"].item() < 1e-10
    assert torch.allclose(output.estimate, target, rtol=0, atol=1e-3)


def test_a_perfect_flow_network_estimates_its_target() -> None:
    stage, target = FLOW.stage(), FLOW.target(4)
    inputs = stage.preprocess(target, None, TrainContext(Draw(0), labels=FLOW.labels(4)))
    assert inputs.noise is not None
    perfect = inputs.noise - target
    stage.network = torch.nn.Module()
    stage.network.forward = lambda x, times, labels: perfect  # type: ignore[method-assign]
    output = stage(inputs)
    assert output.losses["velocity"].item() == 0
    assert torch.allclose(output.estimate, target, rtol=0, atol=1e-6)


def test_training_draws_every_timestep_and_drops_labels() -> None:
    case = with_settings(DIFFUSION, label_drop=0.25)
    stage = case.stage()
    context = TrainContext(Draw(0), labels=case.labels(4000))
    inputs = stage.preprocess(torch.zeros(4000, 3, 2, 2), None, context)
    assert inputs.times is not None
    assert inputs.labels is not None
    assert torch.bincount(inputs.times, minlength=6).min() > 500
    assert (inputs.labels == 5).float().mean().item() == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize(("sampling", "spread"), [("uniform", 0.289), ("logit-normal", 0.208)])
def test_flow_draws_its_times_as_configured(sampling: str, spread: float) -> None:
    stage = with_settings(FLOW, time_sampling=sampling).stage()
    times = stage.preprocess(torch.zeros(8000, 3, 2, 2), None, TrainContext(Draw(0))).times
    assert times is not None
    assert times.mean().item() == pytest.approx(0.5, abs=0.01)
    assert times.std().item() == pytest.approx(spread, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "settings", "start", "end"),
    [
        ("flow.v1", {"channels": 8, "guidance": 1.0, "steps": 10}, 1.0, 0.12),
        (
            "diffusion.v1",
            {
                "channels": 16,
                "latent": 32,
                "schedule": "cosine",
                "zero_terminal_snr": True,
                "prediction": "v",
            },
            0.75,
            0.12,
        ),
    ],
)
def test_a_generator_memorises_two_images(
    kind: str, settings: dict[str, Any], start: float, end: float
) -> None:
    """One image a class: the loss must fall far, and sampling a label must give its image."""
    case = Case(kind, settings, size=8, channels=1, num_classes=2)
    stage = case.stage(fresh=True)
    pattern = torch.zeros(2, 1, 8, 8) - 0.8
    pattern[0, :, :, :4] = 0.8
    pattern[1, :, 2:6, 2:6] = 0.8
    optimizer = torch.optim.AdamW(stage.parameters(), lr=4e-3)
    labels = torch.arange(32) % 2
    losses = []
    for step in range(150):
        context = TrainContext(Draw(0, step), labels=labels)
        (loss,) = stage(stage.preprocess(pattern[labels], None, context)).losses.values()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > start
    assert sum(losses[-20:]) / 20 < end
    with torch.no_grad():
        images = stage.eval().sample(None, request(case, 0, 6))
    error = (images - pattern[torch.arange(6) % 2]).square().mean().sqrt()
    assert error < 0.3


def test_the_schedule_of_the_study_gives_a_warning() -> None:
    shape = ImageShape(3, 16)
    (warning,) = DiffusionConfig().advice(shape, 10)
    for value in ("25", "78 %", "zero_terminal_snr", "paper-baseline-fixed"):
        assert value in warning
    mended = DiffusionConfig(zero_terminal_snr=True, prediction="v")
    assert list(mended.advice(shape, 10)) == []
    assert list(DiffusionConfig(schedule="cosine").advice(shape, 10)) == []
    assert list(DiffusionConfig(timesteps=1000).advice(shape, 10)) == []
    (advice,) = DiffusionConfig(timesteps=400).advice(shape, 10)
    assert "1.7 %" in advice


def test_guidance_without_dropped_labels_gives_a_warning() -> None:
    shape = ImageShape(3, 16)
    (advice,) = FlowConfig(label_drop=0.0).advice(shape, 10)
    assert "guidance" in advice
    assert "label_drop" in advice
    assert list(FlowConfig(label_drop=0.0).advice(shape, None)) == []
    assert list(FlowConfig().advice(shape, 10)) == []
