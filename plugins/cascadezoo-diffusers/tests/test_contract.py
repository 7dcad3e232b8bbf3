"""Every kind follows the stage contract."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cascadezoo_diffusers
import pytest
import torch
from cascadezoo_diffusers.samplers import SAMPLERS
from cases import ENTRIES, SMALL, Case, request, train
from torch.utils.flop_counter import FlopCounterMode

import cascadezoo
from cascadezoo import Draw, ImageDraw, SampleRequest, Stage, StageInputs, TrainContext

cases = pytest.mark.parametrize("case", SMALL.values(), ids=str)
learned = pytest.mark.parametrize(
    "case", [case for case in SMALL.values() if not case.config().frozen], ids=str
)


def test_every_kind_has_a_case() -> None:
    assert set(SMALL) == set(ENTRIES)


@cases
def test_images_have_the_size_and_type_of_the_geometry(case: Case) -> None:
    stage = case.stage()
    output = train(stage, case)
    assert output.estimate.shape == (4, 3, 12, 12)
    assert output.estimate.dtype == torch.float32
    assert [loss.shape for loss in output.losses.values()] == [()] * len(output.losses)
    with torch.inference_mode():
        images = stage.eval().sample(case.upstream(4), request(case, 0, 4))
    assert images.shape == (4, 3, 12, 12)
    assert images.dtype == torch.float32
    assert -1 <= images.min() < images.max() <= 1


@learned
def test_the_loss_reaches_every_parameter(case: Case) -> None:
    stage = case.stage()
    sum(train(stage, case).losses.values()).backward()
    for name, parameter in stage.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@learned
def test_the_estimate_reaches_parameters_and_upstream(case: Case) -> None:
    stage, upstream = case.stage(), case.upstream(4)
    if upstream is not None:
        upstream.requires_grad_()
    train(stage, case, upstream=upstream).estimate.square().sum().backward()
    for name, parameter in stage.named_parameters():
        if "encode" not in name and ".quant" not in name:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name
    if upstream is not None:
        assert upstream.grad is not None
        assert upstream.grad.abs().min() > 0


def on_meta(case: Case) -> Stage:
    with torch.device("meta"):
        stage: Stage = ENTRIES[case.kind].load()(case.config(), case.geometry())
    assert all(parameter.is_meta for parameter in stage.parameters())
    assert not any(buffer.is_meta for buffer in stage.buffers())
    return stage.to("meta")


def meta_request(case: Case, **options: Any) -> SampleRequest:
    draw = ImageDraw(0, "s", 0, 4, "meta")
    return SampleRequest(4, draw, labels=case.labels(4, "meta"), **options)


@cases
def test_plans_on_the_meta_device(case: Case) -> None:
    stage = on_meta(case)
    upstream = case.upstream(4, "meta")
    context = TrainContext(Draw(0, device="meta"), labels=case.labels(4, "meta"))
    with FlopCounterMode(display=False) as counter:
        output = stage(stage.preprocess(case.target(4, "meta"), upstream, context))
    assert counter.get_total_flops() > 0
    assert output.estimate.is_meta
    with torch.no_grad():
        assert stage.sample(upstream, meta_request(case)).shape == (4, 3, 12, 12)


@pytest.mark.slow
def test_every_sampler_plans_on_the_meta_device() -> None:
    case = SMALL["diffusers-unet2d.v1"]
    stage = on_meta(case)
    for sampler in SAMPLERS:
        with torch.no_grad():
            images = stage.sample(None, meta_request(case, sampler=sampler, steps=4))
        assert images.shape == (4, 3, 12, 12), sampler


@cases
def test_weights_loaded_over_meta_give_the_same_images(case: Case) -> None:
    original = case.stage().eval()
    with torch.device("meta"):
        copy = case.make()
    copy.load_state_dict(original.state_dict(), assign=True)
    copy.eval()
    with torch.no_grad():
        expected = original.sample(case.upstream(3), request(case, 0, 3))
        assert torch.equal(copy.sample(case.upstream(3), request(case, 0, 3)), expected)


@cases
def test_only_weights_are_saved_and_they_are_contiguous(case: Case) -> None:
    stage = case.stage()
    state = stage.state_dict()
    measured = {"scale"} if case.kind == "diffusers-autoencoder-kl.v1" else set()
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
    if output.losses:
        sum(output.losses.values()).backward()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        images = stage.eval().sample(case.upstream(4), request(case, 0, 4))
    assert images.dtype == torch.float32


@cases
def test_a_step_depends_on_its_draw_alone(case: Case) -> None:
    stage = case.stage()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = train(stage, case, step=3)
    images = stage.sample(case.upstream(2), request(case, 0, 2))
    assert torch.equal(torch.get_rng_state(), state), "used the global generator"
    torch.manual_seed(2)
    assert torch.equal(first.estimate, train(stage, case, step=3).estimate)
    assert torch.equal(stage.sample(case.upstream(2), request(case, 0, 2)), images)
    # A frozen stage draws nothing in a step.
    drawn = not torch.allclose(first.estimate, train(stage, case, step=4).estimate)
    assert drawn != case.config().frozen


def _split(case: Case, **options: Any) -> None:
    stage = case.stage().eval()
    upstream = case.upstream(5)

    def sample(first: int, count: int) -> torch.Tensor:
        part = None if upstream is None else upstream[first : first + count]
        with torch.no_grad():
            return stage.sample(part, request(case, first, count, **options))

    torch.manual_seed(1)
    state = torch.get_rng_state()
    together = sample(0, 5)
    assert torch.equal(torch.get_rng_state(), state), "used the global generator"
    split = torch.cat([sample(0, 1), sample(1, 3), sample(4, 1)])
    assert (together - split).abs().max() < 1e-5
    assert (together[0] - together[1]).abs().max() > 1e-3


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_images_do_not_depend_on_how_a_batch_is_split(sampler: str) -> None:
    # Without labels, because images of different labels differ anyway.
    case = SMALL["diffusers-unet2d.v1"]
    _split(Case(case.kind, case.settings, num_classes=None), sampler=sampler)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("diffusers-unet2d.v1", {"sampler": "ddim", "options": {"eta": 0.5}, "guidance": 2.0}),
        ("diffusers-unet2d-sr.v1", {}),
        ("diffusers-autoencoder-kl.v1", {}),
        ("autoencoder-kl.v1", {}),
    ],
)
def test_images_with_options_do_not_depend_on_how_a_batch_is_split(
    kind: str, options: dict[str, Any]
) -> None:
    _split(SMALL[kind], **options)


@pytest.mark.slow
@cases
def test_the_network_compiles_into_one_graph(case: Case) -> None:
    stage = case.stage()
    context = TrainContext(Draw(0), labels=case.labels(2))
    inputs = stage.preprocess(case.target(2), case.upstream(2), context)

    def run(inputs: StageInputs) -> torch.Tensor:
        return stage(inputs).estimate

    torch.compiler.reset()  # each kind is a new variant of the same function
    compiled = torch.compile(run, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(inputs), run(inputs), rtol=0, atol=1e-5)


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


@cases
def test_the_stage_passes_the_check_of_cascadezoo(case: Case) -> None:
    testing = pytest.importorskip("cascadezoo.testing", reason="an older cascadezoo")
    testing.assert_stage(
        ENTRIES[case.kind],
        case.settings,
        size=case.size,
        channels=case.channels,
        num_classes=case.num_classes,
        skip=LONG,
    )


def test_configs_are_imported_without_torch_and_diffusers() -> None:
    code = (
        "import sys, json\n"
        f"sys.path[:0] = {[p for p in sys.path if p]!r}\n"
        "import cascadezoo_diffusers as plugin\n"
        "for entry in plugin.register_stages():\n"
        "    entry.load_config().model_json_schema()\n"
        "heavy = {'torch', 'numpy', 'diffusers', 'safetensors', 'huggingface_hub'}\n"
        "print(json.dumps(sorted(heavy & set(sys.modules))))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert json.loads(result.stdout) == []


def test_only_the_public_api_is_used() -> None:
    count = 0
    sources = Path(cascadezoo_diffusers.__file__).parent
    for path in [*sources.rglob("*.py"), *Path(__file__).parent.glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            for module, name in _uses(node):
                assert module in ("cascadezoo", "cascadezoo.errors", "cascadezoo.testing"), (
                    path,
                    module,
                )
                assert module != "cascadezoo" or name in cascadezoo.__all__, (path, name)
                count += 1
    assert count > 50


def _uses(node: ast.AST) -> list[tuple[str, str]]:
    """The names that a statement imports from cascadezoo, with their modules."""
    if isinstance(node, ast.ImportFrom):
        module = node.module or ""
        if module.split(".")[0] == "cascadezoo":
            return [(module, alias.name) for alias in node.names]
    if isinstance(node, ast.Import):
        names = [a.name for a in node.names if a.name.split(".")[0] == "cascadezoo"]
        return [(name, "__all__") for name in names if name != "cascadezoo"]
    if isinstance(node, ast.Attribute) and node.attr != "__all__":
        package = isinstance(node.value, ast.Name) and node.value.id == "cascadezoo"
        return [("cascadezoo", node.attr)] if package else []
    return []


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=lambda e: e.name)
def test_every_field_is_described(entry: Any) -> None:
    schema = entry.load_config().model_json_schema()
    for part in [schema, *schema.get("$defs", {}).values()]:
        for name, field in part["properties"].items():
            assert field.get("description"), name
