"""Batches in parts and recomputed activations: the same gradients with less memory."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import torch
from errors_help import raises
from train_cases import image_data, trainer

from cascadezoo.build.plan import make_plan
from cascadezoo.cascade.cascade import Cascade
from cascadezoo.data.loader import DeviceLoader
from cascadezoo.errors import DataError, InputError, SpecError
from cascadezoo.nn.recompute import recompute_blocks, recomputed_blocks
from cascadezoo.spec import load_spec
from cascadezoo.train.compilation import choose_compilation
from cascadezoo.train.engine import make_accelerator
from cascadezoo.train.trainer import Trainer

FLOW = {"name": "coarse", "kind": "flow.v1", "config": {"size": 4, "channels": 8, "dropout": 0.0}}
STAGES = [
    FLOW,
    {"name": "up", "kind": "flow-sr.v1", "config": {"channels": 8, "s_max": 0.2}},
    {"name": "refine", "kind": "vit.v1", "config": {"features": 16, "blocks": 1, "heads": 2}},
]


def cascade(**training: Any) -> Cascade:
    phase = {
        "name": "joint",
        "train": ["coarse", "up", "refine"],
        "steps": 3,
        "joint": True,
        "teacher_forcing": {"start": 0.5, "end": 0.5},
    }
    data = {"source": "shapes", "config": {"size": 8, "count": 64}, "num_classes": 8}
    base = {"batch_size": 8, "losses": [], "clip_norm": None, "phases": [phase]}
    spec = {"name": "parts", "data": data, "stages": STAGES, "training": {**base, **training}}
    torch.manual_seed(0)
    made = Cascade.from_spec(load_spec(spec))
    with torch.no_grad():  # no weight stays at zero, where gradients would vanish
        for parameter in made.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return made


def gradients(made: Cascade) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """The gradients and the losses of the first step."""
    running = trainer(made)
    phase = running._begin(0)
    losses = running._gradients(phase, phase.batches.batch(0, 0), 0)
    grads = {n: p.grad for n, p in made.stages.named_parameters() if p.grad is not None}
    return grads, {name: float(loss) for name, loss in losses.items()}


def assert_equal_gradients(made: Cascade, other: Cascade) -> None:
    one, losses = gradients(made)
    two, more = gradients(other)
    assert losses == pytest.approx(more, rel=1e-5)
    assert one.keys() == two.keys()
    assert len(one) > 50
    for name, grad in one.items():
        scale = max(float(grad.abs().max()), 1e-3)
        torch.testing.assert_close(two[name], grad, rtol=1e-4, atol=1e-5 * scale, msg=name)


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_parts_of_a_batch_give_its_gradients(parts: int) -> None:
    assert_equal_gradients(cascade(), cascade(accumulate=parts))


def test_parts_of_all_processes_share_the_draws_of_the_batch() -> None:
    """Two processes with two parts each draw what one process draws for the whole batch."""
    made = cascade()
    whole = trainer(made)._begin(0).walk
    images = torch.rand(8, 3, 8, 8) * 2 - 1
    labels = torch.arange(8)
    expected = whole.losses_of(images, labels, 0)["generator"]
    parts = []
    for rank in range(2):
        share = trainer(made)._begin(0).walk
        share.rank, share.world = rank, 2
        for part in range(2):
            rows = slice(4 * rank + 2 * part, 4 * rank + 2 * part + 2)
            parts.append(
                share.losses_of(images[rows], labels[rows], 0, part=part, parts=2)["generator"]
            )
    for name, loss in expected.items():
        mean = sum(rows[name].item() for rows in parts) / 4
        assert mean == pytest.approx(loss.item(), rel=1e-5), name


def test_recomputed_blocks_give_the_same_gradients() -> None:
    changed = cascade()
    assert sum(recompute_blocks(stage) for _, stage in changed.named_stages()) > 10
    assert changed.stages.state_dict().keys() == cascade().stages.state_dict().keys()
    assert_equal_gradients(cascade(), changed)


def test_recomputed_dropout_is_the_same_dropout() -> None:
    def grads(recompute: bool) -> list[torch.Tensor]:
        made = cascade()
        (block,) = recomputed_blocks(made.stage("coarse"))[:1]
        dropouts = [m for m in block.modules() if isinstance(m, torch.nn.Dropout)]
        for dropout in dropouts:
            dropout.p = 0.5
        if recompute:
            recompute_blocks(made.stage("coarse"))
        running = trainer(made)
        phase = running._begin(0)
        running._seed(phase, 0)
        running._gradients(phase, phase.batches.batch(0, 0), 0)
        return [p.grad for p in made.stage("coarse").parameters() if p.grad is not None]

    for one, two in zip(grads(False), grads(True), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-7)


@torch.no_grad()
def test_blocks_sample_as_before() -> None:
    made, changed = cascade(), cascade()
    for _, stage in changed.named_stages():
        recompute_blocks(stage)
    assert torch.equal(made.sample(2, seed=1), changed.sample(2, seed=1))


def test_the_plan_states_the_memory_of_parts_and_recomputation() -> None:
    whole, parts, recomputed = (
        make_plan(cascade(**training).resolved, "cpu")
        for training in ({}, {"accumulate": 4}, {"recompute": True})
    )
    kept = 8 * sum(row.activation_bytes or 0 for row in whole.stages)
    assert whole.training_bytes - parts.training_bytes == kept * 3 // 4
    less = 8 * sum(row.activation_bytes or 0 for row in recomputed.stages)
    assert whole.training_bytes - recomputed.training_bytes == kept - less
    assert less < 0.75 * kept


def test_uneven_parts_are_refused() -> None:
    with raises(SpecError, "spec", problems={"training.accumulate": "value-error"}):
        cascade(accumulate=3)
    made = cascade(accumulate=4)
    loader = DeviceLoader(image_data(), batch_size=8, seed=0, flip=False, device="cpu", world=4)
    with raises(DataError, "data-batch-uneven", batch_size=8, accumulate=4):
        Trainer(made, loader, make_accelerator(torch.device("cpu"), "fp32"))


def test_recomputation_excludes_compilation() -> None:
    training = cascade(recompute=True).spec.training
    assert choose_compilation(training, torch.device("cpu"), 1e20, 1).scope is None
    explicit = cascade(recompute=True, compile="blocks").spec.training
    with raises(InputError, "input-compile-recompute"):
        choose_compilation(explicit, torch.device("cpu"), 1e20, 1)


def test_defaults_do_not_change_the_digest() -> None:
    spec = cascade().spec
    assert "accumulate" in spec.to_dict()["training"]
    assert spec.training_digest() != cascade(accumulate=2).spec.training_digest()
    data = spec.to_dict()
    del data["training"]["accumulate"], data["training"]["recompute"]
    assert load_spec(data).spec.training_digest() == spec.training_digest()


PEAK = """
import json, sys, torch
torch.set_num_threads(1)
from cascadezoo.build.plan import make_plan
from cascadezoo.cascade.cascade import Cascade
from cascadezoo.nn.recompute import recompute_blocks
from cascadezoo.spec import load_spec
from cascadezoo.stages.base import TrainContext
from cascadezoo.train.memory import peak_memory
from cascadezoo.util.rng import Draw
recompute = json.loads(sys.argv[1])
resolved = load_spec("shapes-demo", settings=["stages.0.config.blocks=6", f"training.recompute={sys.argv[1]}"])
(row, *_) = make_plan(resolved, "cpu").stages
stage = Cascade.from_spec(resolved).stage(row.name).train()
if recompute:
    recompute_blocks(stage)
def run(n):
    size = stage.geometry.output.size
    images = torch.rand(n, 3, size, size) * 2 - 1
    context = TrainContext(Draw(0), torch.zeros(n, dtype=torch.int64))
    sum(stage(stage.preprocess(images, None, context)).losses.values()).backward()
run(2)
def measured():  # not ru_maxrss, which starts at the parent's value
    return peak_memory(torch.device("cpu"))["process_peak_bytes"]
before = measured()
run(256)
print(json.dumps([measured() - before, row.activation_bytes * 256]))
"""


@pytest.mark.slow
def test_recomputation_halves_the_memory_of_a_deep_network() -> None:
    peaks, stated = {}, {}
    for recompute in ("false", "true"):
        done = subprocess.run(
            [sys.executable, "-c", PEAK, recompute], capture_output=True, text=True, check=True
        )
        peaks[recompute], stated[recompute] = json.loads(done.stdout)
    assert peaks["true"] < 0.6 * peaks["false"], (peaks, stated)
    # The plan is a lower bound: gradients and freed memory that stays with the process come on top.
    for case, bound in stated.items():
        assert bound < peaks[case] < 2.5 * bound, (peaks, stated)
