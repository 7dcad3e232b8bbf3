"""What every built-in kind keeps of the stage contract."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from stage_cases import CLASSES, ENTRIES, SMALL, Case, request, train
from torch.utils.flop_counter import FlopCounterMode

from cascadezoo.stages.base import GROUP, SampleRequest, Stage, StageInputs, TrainContext
from cascadezoo.testing import assert_stage
from cascadezoo.util.rng import Draw, ImageDraw

cases = pytest.mark.parametrize("case", SMALL.values(), ids=str)
learning = pytest.mark.parametrize(
    "case",
    [c for c in SMALL.values() if not (c.config().frozen or c.config().parameterless)],
    ids=str,
)


def test_every_built_in_kind_is_here() -> None:
    assert set(SMALL) == set(ENTRIES)


@cases
def test_images_have_the_size_and_type_of_the_geometry(case: Case) -> None:
    stage = case.stage()
    output = train(stage, case)
    assert output.estimate.shape == (4, 3, 12, 12)
    assert output.estimate.dtype == torch.float32
    assert [loss.shape for loss in output.losses.values()] == [()] * len(output.losses)
    assert output.losses or case.config().frozen
    with torch.inference_mode():
        images = stage.eval().sample(case.upstream(4), request(case, 0, 4))
    assert images.shape == (4, 3, 12, 12)
    assert images.dtype == torch.float32
    assert -1 <= images.min() < images.max() <= 1
    assert set(stage.parameter_groups()) == {GROUP}


@learning
def test_the_loss_reaches_every_parameter(case: Case) -> None:
    stage = case.stage()
    sum(train(stage, case).losses.values()).backward()
    for name, parameter in stage.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@cases
def test_the_estimate_reaches_parameters_and_upstream(case: Case) -> None:
    stage, upstream = case.stage(), case.upstream(4)
    if upstream is not None:
        upstream.requires_grad_()
    train(stage, case, upstream=upstream).estimate.square().sum().backward()
    for name, parameter in stage.named_parameters():
        # A decoder's estimate is of the upstream latents: its encoder has no part in it.
        if parameter.requires_grad and not (case.role == "decoder" and "encode" in name):
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name
    if upstream is not None:
        assert upstream.grad is not None
        assert upstream.grad.abs().min() > 0


@cases
def test_plans_on_the_meta_device(case: Case) -> None:
    with torch.device("meta"):
        stage: Stage = ENTRIES[case.kind].load()(case.config(), case.geometry())
    assert all(parameter.is_meta for parameter in stage.parameters())
    assert not any(buffer.is_meta for buffer in stage.buffers())
    stage.to("meta")
    context = TrainContext(Draw(0, device="meta"), labels=case.labels(4, "meta"))
    upstream = case.upstream(4, "meta")
    with FlopCounterMode(display=False) as counter:
        output = stage(stage.preprocess(case.target(4, "meta"), upstream, context))
    assert (counter.get_total_flops() > 0) is not case.config().parameterless
    assert output.estimate.is_meta
    sample_request = SampleRequest(
        4, ImageDraw(0, "s", 0, 4, "meta"), labels=case.labels(4, "meta")
    )
    with torch.no_grad():
        assert stage.sample(upstream, sample_request).shape == (4, 3, 12, 12)


@pytest.mark.slow
@cases
def test_the_stage_passes_the_check_of_plugins(case: Case) -> None:
    """The check of external stages; stricter tests replace the skipped parts.

    They are here, and for several processes in tests/train/test_train_processes.py.
    """
    left_out = ("config-without-torch", "import-cost", "processes", "bf16", "compile")
    assert_stage(ENTRIES[case.kind], case.settings, size=case.size, skip=left_out)


@cases
def test_only_weights_are_saved_and_they_are_contiguous(case: Case) -> None:
    stage = case.stage()
    state = stage.state_dict()
    measured = {"scale"} if case.kind == "autoencoder.v1" else set()
    assert set(state) == {name for name, _ in stage.named_parameters()} | measured
    assert all(tensor.is_contiguous() for tensor in state.values())


@cases
def test_bfloat16_autocast_trains_and_samples_in_float32(case: Case) -> None:
    stage = case.stage()
    exact = train(stage, case)
    with torch.autocast("cpu", torch.bfloat16):
        output = train(stage, case)
    assert output.estimate.dtype == torch.float32
    for name, loss in output.losses.items():
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(exact.losses[name].item(), rel=0.05)
    if output.losses and not case.config().parameterless:
        sum(output.losses.values()).backward()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        images = stage.eval().sample(case.upstream(4), request(case, 0, 4))
    assert images.dtype == torch.float32


@cases
def test_a_step_depends_only_on_its_draw(case: Case) -> None:
    stage = case.stage()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = train(stage, case, step=3)
    images = stage.sample(case.upstream(2), request(case, 0, 2))
    assert torch.equal(torch.get_rng_state(), state), "used the global generator"
    torch.manual_seed(2)
    again = train(stage, case, step=3)
    assert torch.equal(first.estimate, again.estimate)
    assert torch.equal(stage.sample(case.upstream(2), request(case, 0, 2)), images)
    other = train(stage, case, step=4)
    if case.upstream(1) is None:
        assert not torch.allclose(first.estimate, other.estimate)


@pytest.mark.parametrize(
    ("case", "options"),
    [
        *((case, {}) for case in SMALL.values()),
        (SMALL["diffusion.v1"], {"sampler": "ddim", "options": {"eta": 0.5}}),
    ],
)
def test_images_do_not_depend_on_how_a_batch_is_split(case: Case, options: dict[str, Any]) -> None:
    stage = case.stage().eval()
    upstream = case.upstream(5)

    def part(first: int, count: int) -> torch.Tensor:
        given = None if upstream is None else upstream[first : first + count]
        with torch.no_grad():
            return stage.sample(given, request(case, first, count, **options))

    whole = part(0, 5)
    split = torch.cat([part(0, 1), part(1, 3), part(4, 1)])
    assert (whole - split).abs().max() < 1e-5
    assert (whole[0] - whole[1]).abs().max() > 1e-3


@pytest.mark.slow
@cases
def test_the_network_compiles_into_one_graph(case: Case) -> None:
    if case.kind == "mean-flow.v1":
        # Its derivative runs around compiled code (test_stages_mean_flow.py): compilers have no
        # forward mode.
        case = dataclasses.replace(case, settings={**case.settings, "flow_ratio": 1.0})
    stage = case.stage()
    context = TrainContext(Draw(0), labels=case.labels(2))
    inputs = stage.preprocess(case.target(2), case.upstream(2), context)

    def run(inputs: StageInputs) -> torch.Tensor:
        return stage(inputs).estimate

    torch.compiler.reset()  # each kind is a new code path of the same function
    compiled = torch.compile(run, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(inputs), run(inputs), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["flow.v1", "mean-flow.v1", "diffusion.v1"])
@pytest.mark.parametrize("settings", [{}, {"conditional": False}])
def test_generators_do_without_labels(kind: str, settings: dict[str, object]) -> None:
    num_classes = CLASSES if settings else None
    case = Case(kind, {**SMALL[kind].settings, **settings}, num_classes=num_classes)
    stage = case.stage()
    assert not any("labels" in name for name, _ in stage.named_parameters())
    sum(train(stage, case).losses.values()).backward()
    assert all(parameter.grad is not None for parameter in stage.parameters())
    assert stage.eval().sample(None, request(case, 0, 2)).shape == (2, 3, 12, 12)


@pytest.mark.parametrize("kind", ["flow.v1", "mean-flow.v1", "diffusion.v1", "diffusion-sr.v1"])
def test_forward_needs_the_inputs_from_preprocess(kind: str) -> None:
    with pytest.raises(TypeError):
        SMALL[kind].stage()(StageInputs(target=SMALL[kind].target(2)))
