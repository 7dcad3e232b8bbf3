"""The stage contract, and rules of external plugins."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import cascadezoo_gan
import pytest
import torch
from cascadezoo_gan.config import GanConfig, SrGanConfig, smallest
from gan_cases import COUNT, KINDS, images, labels, make, request, settings, train, upstream, values
from torch.utils.flop_counter import FlopCounterMode

import cascadezoo
from cascadezoo import Draw, ImageDraw, ImageShape, SampleRequest, StageInputs, TrainContext
from cascadezoo.testing import assert_stage

kinds = pytest.mark.parametrize("kind", KINDS)
SOURCES = sorted(Path(cascadezoo_gan.__file__).parent.glob("*.py"))


def test_only_public_names_are_imported() -> None:
    seen = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cascadezoo."):
                pytest.fail(f"{path.name}:{node.lineno} imports from {node.module}")
            if isinstance(node, ast.Import):
                assert not any(n.name.startswith("cascadezoo.") for n in node.names), path.name
            if isinstance(node, ast.ImportFrom) and node.module == "cascadezoo":
                seen |= {name.name for name in node.names}
    assert seen <= set(cascadezoo.__all__)
    assert {"Stage", "GroupOptions", "Loss"} <= seen


def test_entries_and_configs_import_no_torch() -> None:
    code = (
        "import sys, cascadezoo_gan, cascadezoo_gan.config\n"
        "assert [e.name for e in cascadezoo_gan.register_stages()] == ['gan.v1', 'srgan.v1']\n"
        "cascadezoo_gan.config.GanConfig().model_json_schema()\n"
        "print('torch' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_every_field_is_described() -> None:
    for config in (GanConfig, SrGanConfig):
        fields = config.model_json_schema()
        rows = {**fields["properties"], **fields["$defs"]["DiscriminatorConfig"]["properties"]}
        assert [name for name, row in rows.items() if not row.get("description")] == []


# They start processes, compile or train; `cascadezoo plugins check` runs them in CI.
LONG = (
    "config-without-torch",
    "import-cost",
    "joint-training",
    "resume",
    "round-trip",
    "processes",
    "compile",
)


@kinds
def test_the_stage_passes_the_check_of_cascadezoo(kind: str) -> None:
    assert_stage(kind, settings(kind), skip=LONG)


@kinds
def test_images_and_losses(kind: str) -> None:
    stage = make(kind)
    output = train(stage)
    assert output.estimate.shape == (COUNT, 3, 12, 12)
    assert output.estimate.dtype == torch.float32
    own = {"l1"} if kind == "srgan.v1" else set()
    assert set(output.losses) == {"adversarial", "discriminator", "r1"} | own
    assert all(v.shape == () and v.dtype == torch.float32 for v in values(output).values())
    made = stage.eval().sample(upstream(stage), request(0, COUNT))
    assert made.shape == (COUNT, 3, 12, 12)
    assert -1 <= made.min() < made.max() <= 1
    assert (made[0] - made[1]).abs().max() > 1e-3


@kinds
def test_a_step_and_a_sample_depend_only_on_their_draws(kind: str) -> None:
    stage = make(kind)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first, made = train(stage, 3), stage.sample(upstream(stage), request(0, COUNT))
    assert torch.equal(torch.get_rng_state(), state)
    again = train(stage, 3)
    assert torch.equal(first.estimate, again.estimate)
    assert all(torch.equal(v, values(again)[k]) for k, v in values(first).items())
    fed = upstream(stage)
    split = [
        stage.sample(None if fed is None else fed[a : a + n], request(a, n))
        for a, n in ((0, 1), (1, 3))
    ]
    assert (torch.cat(split) - made).abs().max() < 1e-5


@kinds
def test_plans_on_the_meta_device(kind: str) -> None:
    with torch.device("meta"):
        stage = make(kind)
    assert all(tensor.is_meta for tensor in stage.state_dict().values())
    context = TrainContext(Draw(0, device="meta"), labels=labels(device="meta"))
    inputs = stage.preprocess(images(device="meta"), upstream(stage, device="meta"), context)
    with FlopCounterMode(display=False) as counter:
        output = stage(inputs)
    assert counter.get_total_flops() > 0
    assert output.estimate.is_meta
    assert values(output)["r1"].is_meta
    sample_request = SampleRequest(
        COUNT, ImageDraw(0, "s", 0, COUNT, "meta"), labels(device="meta")
    )
    with torch.no_grad():
        assert stage.sample(upstream(stage, device="meta"), sample_request).shape == (
            COUNT,
            3,
            12,
            12,
        )


@kinds
@pytest.mark.parametrize("keep", [False, True])
def test_saved_weights_draw_the_same_images_with_and_without_the_discriminator(
    kind: str, keep: bool
) -> None:
    stage = make(kind, discriminator={"keep": keep}).eval()
    saved = stage.saved_state()
    assert any(name.startswith("discriminator.") for name in saved) is keep
    assert all(tensor.is_contiguous() for tensor in saved.values())
    with torch.device("meta"):
        copy = make(kind, discriminator={"keep": keep}).eval()
    copy.drop_training_only()
    copy.load_state_dict(saved, assign=True)
    fed = upstream(stage)
    wanted = stage.sample(fed, request(0, COUNT))
    assert torch.equal(copy.sample(fed, request(0, COUNT)), wanted)
    # A loaded stage has an estimate, but adversarial losses only with the discriminator.
    assert ("discriminator" in train(copy).losses) is keep
    assert len(copy.parameter_groups()["discriminator"]) == (len(saved) - copy_size(copy)) * keep


def copy_size(stage: torch.nn.Module) -> int:
    return sum(not name.startswith("discriminator.") for name in stage.state_dict())


@kinds
def test_a_frozen_stage_gives_its_estimate_and_no_adversarial_losses(kind: str) -> None:
    stage = make(kind).requires_grad_(False)
    fed = upstream(stage)
    with torch.no_grad():
        assert not {"adversarial", "discriminator", "r1"} & set(train(stage).losses)
    if fed is not None:
        # Gradients of a joint phase pass through it.
        fed.requires_grad_()
        train(stage, fed=fed).estimate.square().sum().backward()
        assert fed.grad.abs().min() > 0


@kinds
def test_bfloat16_trains_and_samples_in_float32(kind: str) -> None:
    stage = make(kind)
    exact = values(train(stage))
    with torch.autocast("cpu", torch.bfloat16):
        output = train(stage)
    for name, value in values(output).items():
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(exact[name].item(), rel=0.05, abs=2e-3), name
    # The penalty is always computed in float32.
    assert values(output)["r1"].item() == pytest.approx(exact["r1"].item(), rel=1e-6)
    sum(values(output).values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in stage.parameters())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert stage.sample(upstream(stage), request(0, COUNT)).dtype == torch.float32


@kinds
def test_the_networks_compile_into_one_graph(kind: str) -> None:
    stage = make(kind)
    # A graph does not support the gradient inside the penalty; this step has no penalty.
    context = TrainContext(Draw(0), labels=labels(), step=1)
    inputs = stage.preprocess(images(), upstream(stage), context)

    def run(inputs: StageInputs) -> torch.Tensor:
        return stage(inputs).estimate

    torch.compiler.reset()
    compiled = torch.compile(run, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(inputs), run(inputs), rtol=0, atol=1e-5)


def test_a_gan_without_labels() -> None:
    for stage in (make("gan.v1", conditional=False), make("gan.v1", None)):
        assert not any("labels" in name for name, _ in stage.named_parameters())
        sum(values(train(stage)).values()).backward()
        assert stage.eval().sample(None, request(0, 2, labels=None)).shape == (2, 3, 12, 12)
    # A model with labels draws random labels if the request has none.
    stage = make("gan.v1").eval()
    made = stage.sample(None, request(0, COUNT, labels=None))
    assert not torch.equal(made, stage.sample(None, request(0, COUNT)))


@pytest.mark.parametrize(
    ("size", "grid"), [(1, 1), (2, 2), (4, 4), (5, 5), (6, 3), (16, 4), (28, 7), (30, 15), (96, 3)]
)
def test_any_size_can_be_made(size: int, grid: int) -> None:
    from cascadezoo_gan.layers import Discriminator, Painter

    assert smallest(size) == grid
    made = Painter(1, size, 2, 3, None)(torch.randn(4, 3))
    assert made.shape == (4, 1, size, size)
    assert Discriminator(1, size, 2, None, spread=True)(made).shape == (4,)
    advice = list(GanConfig().advice(ImageShape(1, size), None))
    assert bool(advice) == (grid > 8)


def test_advice() -> None:
    shape = ImageShape(3, 32)
    assert not list(SrGanConfig().advice(shape, None))
    (text,) = SrGanConfig(adversarial=1.0).advice(shape, None)
    assert "1" in text
    (text,) = GanConfig.model_validate({"discriminator": {"r1": 0.0}}).advice(shape, None)
    assert "discriminator.r1" in text
