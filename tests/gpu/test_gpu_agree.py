"""A GPU computes the same as a CPU from the same weights, images and draws.

A GPU draws other numbers than a CPU, so both use the CPU's draws here. On a machine without a GPU,
bf16 is compared with float32.
"""

from __future__ import annotations

import copy

import pytest
import torch
from gpu_cases import (
    KINDS,
    autocast,
    distance,
    losses_and_gradients,
    note,
    request_of,
    spec_of,
    stirred,
    upstream_of,
    use_tf32,
)

from cascadezoo.util.rng import Draw

CPU = torch.device("cpu")
# Norm of the difference relative to the norm of losses, estimates and images.
FORWARD = {"fp32": 1e-4, "tf32": 5e-3, "bf16": 2e-2}
# Of all gradients of a stage together.
BACKWARD = {"fp32": 1e-4, "tf32": 5e-3, "bf16": 2e-2}


@pytest.mark.parametrize("precision", FORWARD)
@pytest.mark.parametrize("kind", KINDS)
def test_losses_gradients_and_images_are_those_of_a_cpu(
    kind: str, precision: str, device: torch.device
) -> None:
    if device.type != "cuda" and precision != "bf16":
        pytest.skip("needs a CUDA device")
    cascade = stirred(spec_of(kind, 2))
    reference = cascade.stage("own")
    stage = copy.deepcopy(reference).to(device)
    use_tf32(precision == "tf32")
    mixed = "bf16" if precision == "bf16" else "fp32"
    expected, estimate, slopes = losses_and_gradients(reference, CPU)
    losses, guess, gradients = losses_and_gradients(stage, device, mixed)
    off = {name: distance(losses[name], expected[name]) for name in expected}
    off["estimate"] = distance(guess, estimate)
    with torch.no_grad():
        images = reference.eval().sample(upstream_of(reference, 4, CPU), request_of(4, CPU))
        with autocast(device, mixed):
            drawn = stage.eval().sample(upstream_of(stage, 4, device), request_of(4, device))
    off["images"] = distance(drawn, images)
    slope = None
    if slopes is not None and gradients is not None:
        slope = distance(gradients, slopes)
    note(f"agree {kind} {precision}", gradients=slope, **off)
    assert (slopes is None) is (gradients is None)
    assert max(off.values()) <= FORWARD[precision], off
    assert slope is None or slope <= BACKWARD[precision]


def test_draws_of_a_gpu_are_reproducible_and_differ_from_those_of_a_cpu(
    cuda: torch.device,
) -> None:
    one, two, host = (Draw("key", device=d).randn(64) for d in (cuda, cuda, CPU))
    assert torch.equal(one, two)
    assert not torch.equal(one.cpu(), host)
