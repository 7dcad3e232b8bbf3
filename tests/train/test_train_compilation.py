"""The choice whether a training compiles its networks: requests and ``auto``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from errors_help import raises
from toys import toy_cascade, toy_spec, toys
from train_cases import equal, trainer

import cascadezoo
from cascadezoo.build.build import build_cascade
from cascadezoo.build.plan import make_plan
from cascadezoo.cascade.cascade import Cascade
from cascadezoo.errors import InputError
from cascadezoo.nn.compiled import is_compiled
from cascadezoo.spec import TrainingSpec, load_spec, read_spec, resolve
from cascadezoo.train.compilation import (
    CompileChoice,
    SamplingCompile,
    choose_compilation,
    compile_for_sampling,
)
from cascadezoo.train.events import read_events

TINY = "diffusion-pixelshuffle-vit-tiny"
CPU, META = torch.device("cpu"), torch.device("meta")
HOURS = 1e15
"""FLOPs of a training that takes hours on a CPU."""


def choice(value: Any, device: torch.device = CPU, flops: float | None = HOURS) -> CompileChoice:
    return choose_compilation(TrainingSpec(compile=value), device, flops, networks=2)


@pytest.mark.parametrize(
    ("value", "scope"),
    [(False, None), (True, "blocks"), ("blocks", "blocks"), ("network", "network")],
)
def test_a_request_is_followed_however_short_the_training(value: Any, scope: str | None) -> None:
    decision = choice(value, flops=1.0)
    assert decision.scope == scope
    assert "training.compile is" in decision.reason


def test_auto_compiles_only_long_trainings() -> None:
    assert choice("auto").scope == "blocks"
    assert choice("auto", flops=1e12).scope is None
    assert choice("auto", flops=None).scope is None
    assert choice("auto", flops=None).reason != choice("auto", flops=1e12).reason


def test_auto_counts_every_network() -> None:
    flops = 2.5 * 90.0 / 0.12 * 6e10 * torch.get_num_threads()  # saves 2.5 compilations
    spec = TrainingSpec()
    assert choose_compilation(spec, CPU, flops, networks=1).scope == "blocks"
    assert choose_compilation(spec, CPU, flops, networks=2).scope is None


def test_auto_skips_an_impossible_compilation_and_a_request_is_refused() -> None:
    assert choice("auto", META).scope is None
    assert choice(False, META).scope is None
    for value in (True, "blocks", "network"):
        with raises(InputError, "input-compile-impossible", device="meta") as caught:
            choice(value, META)
        assert "training.compile" in (caught.value.hint or "")


def test_the_default_does_not_change_digests_of_published_specs() -> None:
    plain = load_spec(TINY).spec
    assert plain.training.compile == "auto"
    chosen = load_spec(TINY, settings=["training.compile=network"]).spec
    assert chosen.training_digest() != plain.training_digest()
    bundled = Path(cascadezoo.__file__).parent / "zoo" / "models" / "shapes-tiny" / "config.json"
    published = json.loads(bundled.read_text())
    assert "compile" not in published["spec"]["training"]
    assert resolve(published["spec"]).spec.training.compile == "auto"


@pytest.mark.parametrize(
    ("requested", "count", "scope"),
    [
        ("no", 10**9, None),
        ("auto", 16, None),
        ("auto", 10**9, "blocks"),
        ("blocks", 1, "blocks"),
        ("network", 1, "network"),
    ],
)
def test_a_cascade_is_compiled_for_many_samples(
    requested: SamplingCompile, count: int, scope: str | None
) -> None:
    cascade = Cascade.from_spec(TINY)
    decision = compile_for_sampling(cascade, requested, count)
    assert decision.scope == scope
    assert decision.reason
    # Nothing is compiled before the first image.
    assert {is_compiled(stage) for _, stage in cascade.named_stages()} == {scope is not None}


def test_a_step_whose_backward_pass_cannot_be_compiled_is_repeated() -> None:
    from torch._dynamo.exc import TorchDynamoException

    phase = {"train": ["coarse"]}
    plain, cascade = toy_cascade(phase), toy_cascade(phase)
    trainer(plain).run()
    stage: Any = cascade.stage("coarse")
    stage._compiled_call_impl = stage._call_impl

    def fail(gradient: torch.Tensor) -> torch.Tensor:
        if is_compiled(cascade):
            raise TorchDynamoException("no code for the backward pass")
        return gradient

    stage.scale.register_hook(fail)
    with pytest.warns(RuntimeWarning, match="^the backward pass cannot be compiled") as caught:
        trainer(cascade).run()
    assert len(caught) == 1
    assert equal(plain, cascade)


def test_stages_without_a_network_warn_once() -> None:
    phase = {"name": "p", "train": ["coarse"], "steps": 1}
    cascade = toys(toy_spec({"coarse": "generator", "up": "upsampler"}, [phase]))
    with pytest.warns(RuntimeWarning, match="has no module `network`") as caught:
        cascade.compile(backend="eager")
    assert len(caught) == len(cascade.names)


def test_graphs_are_for_cuda() -> None:
    for value in ("auto", "graphs"):
        assert choice(value, torch.device("cuda"), flops=None).scope == "graphs"
    with raises(InputError, "input-compile-graphs", device="cpu") as caught:
        choice("graphs")
    assert "auto" in (caught.value.hint or "")


def test_flops_of_a_training_are_those_of_its_steps() -> None:
    data, _ = read_spec(TINY)
    data["training"]["phases"] = [
        {"name": "one", "train": ["coarse"], "steps": 10},
        {"name": "two", "train": ["coarse", "up"], "epochs": 2},
    ]
    plan = make_plan(load_spec(data), "cpu")
    coarse, up = (row.flops_forward for row in plan.stages[:2])
    assert coarse is not None
    assert up is not None
    expected = 3 * 4 * (10 * coarse + 2 * 7 * (coarse + up))
    assert plan.training_flops(batch_size=4, steps_per_epoch=7) == pytest.approx(expected)


def test_a_build_records_its_decision(tmp_path: Path) -> None:
    phases = '[{"name":"coarse","train":["coarse"],"steps":1}]'
    settings = [f"training.phases={phases}", "evaluation.metrics=[]"]
    build_cascade(TINY, tmp_path / "run", device="cpu", settings=settings)
    (event,) = [
        row
        for row in read_events(tmp_path / "run" / "events.jsonl")
        if row["event"] == "compilation"
    ]
    assert event["scope"] is None
    assert "expected to save" in event["reason"]


# The compiler reads the gradients of a block's inputs, for which PyTorch warns.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.slow
@pytest.mark.parametrize("scope", ["blocks", "network"])
def test_a_compiled_build_equals_an_eager_one_up_to_rounding(tmp_path: Path, scope: str) -> None:
    phases = '[{"name":"up","train":["coarse","up"],"steps":3}]'
    common = [f"training.phases={phases}", "evaluation.metrics=[]", "training.precision=fp32"]
    models = []
    for name in ("false", f'"{scope}"'):
        run = tmp_path / name.strip('"')
        build_cascade(TINY, run, device="cpu", settings=[*common, f"training.compile={name}"])
        models.append(Cascade.from_pretrained(run / "model"))
    eager, compiled = (model.state_dict() for model in models)
    assert list(eager) == list(compiled)
    assert all(torch.allclose(eager[k], compiled[k], rtol=0, atol=2e-3) for k in eager)
    assert torch.allclose(models[0].sample(2), models[1].sample(2), rtol=0, atol=2e-2)
