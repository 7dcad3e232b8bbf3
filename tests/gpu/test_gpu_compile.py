"""Compiled cascades: equal to eager ones within rounding, and saved under the same names."""

from __future__ import annotations

import copy
import os
import time
from pathlib import Path

import pytest
import torch
from gpu_cases import (
    HAS_COMPILE,
    KINDS,
    GuardedSteps,
    autocast,
    distance,
    flat,
    losses_and_gradients,
    note,
    request_of,
    spec_of,
    state,
    stirred,
    train,
    upstream_of,
)
from safetensors.torch import load_file

from cascadezoo.cascade.cascade import Cascade

# Each compilation takes seconds to tens of seconds; GPU_TESTS_ALL=1 tests all kinds.
FEW = ["flow.v1", "unet-diffusion.v1", "pixelshuffle.v1", "vit.v1"]
CHOSEN = list(KINDS) if os.environ.get("GPU_TESTS_ALL") else FEW
ON_CPU = ["pixelshuffle.v1"]
# Fused operators round less often than separate ones.
CLOSE = {"fp32": 1e-3, "bf16": 2e-2}

# Weights after a training: Adam moves a weight by its learning rate even if the gradient is only
# rounding noise.
TRAINED = {"fp32": 5e-3, "bf16": 5e-2}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not HAS_COMPILE, reason="needs Cascade.compile"),
]


def skip_unless_chosen(kind: str, device: torch.device) -> None:
    if device.type != "cuda" and kind not in ON_CPU:
        pytest.skip("needs a CUDA device")


@pytest.mark.parametrize("precision", CLOSE)
@pytest.mark.parametrize("kind", CHOSEN)
def test_a_compiled_stage_equals_an_eager_one(
    kind: str, precision: str, device: torch.device, tmp_path: Path
) -> None:
    skip_unless_chosen(kind, device)
    torch.compiler.reset()
    cascade = stirred(spec_of(kind, 2)).to(device)
    compiled = copy.deepcopy(cascade)
    began = time.perf_counter()
    compiled.compile()
    eager, fast = cascade.stage("own"), compiled.stage("own")
    expected, estimate, slopes = losses_and_gradients(eager, device, precision)
    losses, guess, gradients = losses_and_gradients(fast, device, precision)
    off = {name: distance(losses[name], expected[name]) for name in expected}
    off["estimate"] = distance(guess, estimate)
    if slopes is not None:
        off["gradients"] = distance(gradients, slopes)
    with torch.no_grad(), autocast(device, precision):
        images = eager.eval().sample(upstream_of(eager, 4, device), request_of(4, device))
        drawn = fast.eval().sample(upstream_of(fast, 4, device), request_of(4, device))
    off["images"] = distance(drawn, images)
    note(f"compiled {kind} {precision}", seconds=round(time.perf_counter() - began, 1), **off)
    assert max(off.values()) <= CLOSE[precision], off
    assert list(compiled.state_dict()) == list(cascade.state_dict())
    one, two = (c.save_pretrained(tmp_path / n) for n, c in (("a", cascade), ("b", compiled)))
    for path in sorted(one.glob("stages/*/model.safetensors")):
        first, second = load_file(path), load_file(two / path.relative_to(one))
        assert list(first) == list(second)
        assert all(torch.equal(first[k], second[k]) for k in first)


def test_networks_that_a_user_compiled_are_saved_under_their_names(
    device: torch.device, tmp_path: Path
) -> None:
    cascade = stirred(spec_of("pixelshuffle.v1", 2)).to(device)
    names = list(cascade.state_dict())
    cascade.stage("own").network = torch.compile(cascade.stage("own").network)
    loaded = Cascade.from_pretrained(cascade.save_pretrained(tmp_path), device=device)
    assert list(loaded.state_dict()) == names
    assert torch.equal(flat(list(loaded.parameters())), flat(list(cascade.parameters())))


@pytest.mark.parametrize("precision", CLOSE)
@pytest.mark.parametrize("kind", CHOSEN)
def test_a_compiled_training_equals_an_eager_one_and_does_not_wait(
    kind: str, precision: str, device: torch.device, steps: int
) -> None:
    skip_unless_chosen(kind, device)
    torch.compiler.reset()
    eager = Cascade.from_spec(spec_of(kind, steps), device=device)
    train(eager, device, precision)
    compiled = Cascade.from_spec(spec_of(kind, steps), device=device).compile()
    began = time.perf_counter()
    with GuardedSteps(device, steps, compiled=True) as guard:
        train(compiled, device, precision, progress=guard)
    assert guard.guarded == steps - 3
    seconds = round(time.perf_counter() - began, 1)
    one, two = state(eager), state(compiled)
    assert list(one) == list(two)
    off = distance(flat(list(two.values())), flat(list(one.values())))
    note(f"compiled training {kind} {precision}", seconds=seconds, weights=off)
    assert off <= TRAINED[precision]
