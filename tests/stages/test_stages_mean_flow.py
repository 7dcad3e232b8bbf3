"""mean-flow.v1: its loss beside that of flow.v1, its derivative, guidance and sampling."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from stage_cases import CLASSES, SMALL, Case, request
from torch import Tensor, nn

from cascadezoo.diffusion.flow import velocity_target
from cascadezoo.diffusion.mean_flow import total_derivative
from cascadezoo.nn.compiled import compile_network
from cascadezoo.nn.recompute import recompute_blocks
from cascadezoo.spec.configs import ImageShape
from cascadezoo.stages.base import StageInputs, TrainContext
from cascadezoo.stages.mean_flow.stage import MeanFlowGenerator
from cascadezoo.util.rng import Draw

COUNT = 8
KIND = "mean-flow.v1"
SETTINGS: dict[str, Any] = {"channels": 8, "multipliers": [1, 2]}


def case_of(**settings: Any) -> Case:
    return Case(KIND, {**SETTINGS, **settings})


def stage_of(case: Case) -> MeanFlowGenerator:
    stage = case.stage()
    assert isinstance(stage, MeanFlowGenerator)
    return stage


def inputs_of(stage: MeanFlowGenerator, case: Case, part: int = 0, parts: int = 1) -> StageInputs:
    each = COUNT // parts
    rows = slice(part * each, (part + 1) * each)
    labels = case.labels(COUNT)
    context = TrainContext(
        Draw(0, "it", rank=part, world=parts), labels=None if labels is None else labels[rows]
    )
    return stage.preprocess(case.target(COUNT)[rows], None, context)


class AsFlow(nn.Module):
    """The network as one of ``flow.v1``, which takes times of another scale and no span."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, times: Tensor, labels: Tensor | None) -> Tensor:
        out: Tensor = self.network(x, times / 1000, labels, torch.zeros_like(times))
        return out


def test_without_spans_the_loss_is_that_of_flow_v1() -> None:
    case = case_of(flow_ratio=1.0, power=0.0)
    stage, flow = stage_of(case), SMALL["flow.v1"].stage()
    inputs = inputs_of(stage, case)
    assert inputs.extra["rows"].numel() == 0
    assert not inputs.extra["level"].any()
    flow.network = AsFlow(stage.network)
    output = stage(inputs)
    expected = flow(dataclasses.replace(inputs, extra={}))
    loss = output.losses["average"]
    assert loss.item() == pytest.approx(expected.losses["velocity"].item(), rel=1e-5)
    assert torch.allclose(output.estimate, expected.estimate, atol=1e-5)
    assert output.figures["mse"].item() == pytest.approx(loss.item())


def test_rows_with_a_span_have_another_target() -> None:
    case = case_of(flow_ratio=0.75)
    stage = stage_of(case)
    inputs = inputs_of(stage, case)
    assert inputs.noise is not None
    assert inputs.times is not None
    assert inputs.extra["rows"].tolist() == [0, 4]
    spans = inputs.extra["level"]
    assert spans.nonzero().flatten().tolist() == [0, 4]
    assert (spans <= inputs.times).all()
    velocity = velocity_target(inputs.target, inputs.noise)
    changed = (stage.targets(inputs) - velocity).abs().amax((1, 2, 3)) > 1e-4
    assert changed.nonzero().flatten().tolist() == [0, 4]
    output = stage(inputs)
    error = F.mse_loss(stage.predict(inputs, inputs.times), stage.targets(inputs))
    assert output.figures["mse"].item() == pytest.approx(error.item(), rel=1e-5)
    # With a power of 1 every image has almost the same weight in the gradient.
    assert 0.9 < output.losses["average"].item() < 1


@pytest.mark.parametrize(
    "settings",
    [
        {"attention": [12, 6], "middle_attention": True},
        {"label_conditioning": "cross-attention"},
        {"label_conditioning": "concat", "dense_skips": True, "scale_shift": False, "pad_to": 16},
    ],
    ids=["attention", "cross-attention", "concat"],
)
def test_the_derivative_of_the_network_equals_finite_differences(
    settings: dict[str, Any],
) -> None:
    case = case_of(**settings)
    stage = stage_of(case)
    inputs = inputs_of(stage, case)
    assert inputs.noise is not None
    assert inputs.times is not None
    assert inputs.noisy is not None
    x, times, labels = inputs.noisy, inputs.times, inputs.labels
    spans = 0.5 * times

    def network(x: Tensor, times: Tensor, spans: Tensor) -> Tensor:
        out: Tensor = stage.network(x, times, labels, spans)
        return out

    v, h = velocity_target(inputs.target, inputs.noise), 1e-2
    exact = total_derivative(network, x, times, spans, v)
    with torch.no_grad():
        ahead = network(x + h * v, times + h, spans + h)
        behind = network(x - h * v, times - h, spans - h)
    difference = (ahead - behind) / (2 * h)
    assert (exact - difference).norm() < 0.02 * difference.norm()


def test_targets_do_not_depend_on_how_a_batch_is_divided() -> None:
    case = case_of(flow_ratio=0.7)
    stage = stage_of(case)
    whole = stage.targets(inputs_of(stage, case))
    parts = [stage.targets(inputs_of(stage, case, part, 4)) for part in range(4)]
    assert torch.allclose(torch.cat(parts), whole, atol=1e-5)


def test_recomputed_blocks_have_the_same_gradients() -> None:
    case = case_of(middle_attention=True)

    def gradients(recompute: bool) -> list[Tensor]:
        stage = stage_of(case).train()
        if recompute:
            assert recompute_blocks(stage.network) > 0
        loss = stage(inputs_of(stage, case)).losses["average"]
        return list(torch.autograd.grad(loss, list(stage.parameters())))

    for plain, again in zip(gradients(False), gradients(True), strict=True):
        assert torch.allclose(plain, again, atol=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
def test_the_derivative_goes_around_compiled_blocks() -> None:
    case = case_of()
    stage = stage_of(case)
    inputs = inputs_of(stage, case)
    plain = stage.targets(inputs)
    compile_network(stage.network, "around", backend="eager")
    stage(inputs).losses["average"].backward()
    assert torch.allclose(stage.targets(inputs), plain, atol=1e-5)


class Labelled(nn.Module):
    """An average velocity that is its label, plus the time."""

    calls = 0

    def forward(self, x: Tensor, times: Tensor, labels: Tensor | None, spans: Tensor) -> Tensor:
        self.calls += 1
        assert labels is not None
        return (labels + times).view(-1, 1, 1, 1).expand_as(x) + 0 * x


@pytest.mark.parametrize(("omega", "kappa", "calls"), [(1.0, 0.0, 0), (2.0, 0.0, 1), (1.0, 0.5, 2)])
def test_guidance_is_part_of_the_targets(omega: float, kappa: float, calls: int) -> None:
    case = case_of(flow_ratio=1.0, omega=omega, kappa=kappa, label_drop=0.8)
    stage = stage_of(case)
    network = Labelled()
    stage.network = network  # type: ignore[assignment]
    inputs = inputs_of(stage, case)
    assert inputs.noise is not None
    assert inputs.labels is not None
    assert inputs.times is not None
    dropped = inputs.labels == CLASSES
    assert dropped.any()
    assert not dropped.all()
    velocity = velocity_target(inputs.target, inputs.noise)
    given, without = ((each + inputs.times).view(-1, 1, 1, 1) for each in (inputs.labels, CLASSES))
    guided = omega * velocity + kappa * given + (1 - omega - kappa) * without
    expected = torch.where(dropped.view(-1, 1, 1, 1), velocity, guided)
    assert torch.allclose(stage.targets(inputs), expected, atol=1e-5)
    assert network.calls == calls


def test_advice_about_guidance() -> None:
    config = case_of(omega=2.0, label_drop=0.0, guidance=1.5).config()
    output = ImageShape(3, 12)
    texts = list(config.advice(output, CLASSES))
    assert any("omega is 2" in text for text in texts)
    assert any("set guidance to 1" in text for text in texts)
    assert not list(config.advice(output, None))


class NormalData(nn.Module):
    """The average velocity of images whose pixels are normal, of a mean and a deviation."""

    mean, deviation = 0.1, 0.2

    def forward(self, x: Tensor, times: Tensor, labels: Tensor | None, spans: Tensor) -> Tensor:
        time, span = times.view(-1, 1, 1, 1), spans.view(-1, 1, 1, 1)
        end = time - span
        ratio = self._deviation(end) / self._deviation(time)
        ended = (1 - end) * self.mean + ratio * (x - (1 - time) * self.mean)
        return (x - ended) / span

    def _deviation(self, time: Tensor) -> Tensor:
        return torch.hypot((1 - time) * self.deviation, time)


@pytest.mark.parametrize("steps", [1, 3])
def test_one_step_is_exact_for_an_exact_average(steps: int) -> None:
    case = Case(KIND, {**SETTINGS, "conditional": False}, num_classes=None)
    stage = stage_of(case)
    stage.network = NormalData()  # type: ignore[assignment]
    images = stage.sample(None, request(case, 0, 4, steps=steps))
    noise = request(case, 0, 4).draw.randn(4, 3, 12, 12)
    expected = (NormalData.mean + NormalData.deviation * noise).clamp(-1, 1)
    assert torch.allclose(images, expected, atol=1e-5)


def test_the_number_of_evaluations() -> None:
    stage = stage_of(case_of())
    assert stage.network_evaluations() == 1
    assert stage.network_evaluations(steps=4) == 4
    assert stage.network_evaluations(steps=4, guidance=2.0) == 8
    assert "sampler" not in stage.sampling_options
