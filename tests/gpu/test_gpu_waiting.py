"""Training steps and sampling do not make the host wait for the device.

The tests watch the operators that make a host wait; on a GPU they watch CUDA, too.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from gpu_cases import (
    KINDS,
    GuardedSteps,
    Waited,
    autocast,
    joint_spec,
    labels_of,
    never_waits,
    reflow_spec,
    spec_of,
    stirred,
    train,
    upstream_of,
)

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.stages.base import SampleRequest
from cascadezoo.util.rng import ImageDraw

STEPS = 8
SPECS = {
    **dict.fromkeys(KINDS, spec_of),
    "joint": lambda name, steps: joint_spec(steps),
    "reflow": lambda name, steps: reflow_spec(steps),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SPECS)
def test_training_steps_do_not_wait(name: str, device: torch.device) -> None:
    check_steps(SPECS[name](name, STEPS), device, "fp32")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_training_steps_in_half_precision_do_not_wait(precision: str, device: torch.device) -> None:
    if precision == "fp16" and device.type != "cuda":
        pytest.skip("needs a CUDA device")
    check_steps(joint_spec(STEPS), device, precision)


def test_steps_that_upload_their_images_do_not_wait(cuda: torch.device) -> None:
    check_steps(joint_spec(STEPS), cuda, "bf16", budget_bytes=0)


def check_steps(spec: object, device: torch.device, precision: str, **options: Any) -> None:
    cascade = Cascade.from_spec(spec, device=device)
    with GuardedSteps(device, STEPS) as guard:
        train(cascade, device, precision, progress=guard, **options)
    assert guard.guarded == STEPS - 3


@pytest.mark.parametrize("kind", KINDS)
def test_sampling_does_not_wait(kind: str, device: torch.device) -> None:
    stage = copy.deepcopy(stirred(spec_of(kind, 2)).stage("own")).to(device).eval()
    upstream, labels = upstream_of(stage, 4, device), labels_of(4, device)

    def request(seed: int) -> SampleRequest:
        return SampleRequest(4, ImageDraw(seed, "own", 0, 4, device), labels)

    with torch.no_grad(), autocast(device, "bf16" if device.type == "cuda" else "fp32"):
        stage.sample(upstream, request(0))
        second = request(1)
        with never_waits(device):
            images = stage.sample(upstream, second)
    assert images.isfinite().all()


@pytest.mark.parametrize("half", [False, True])
def test_a_sampling_call_does_not_wait(half: bool, device: torch.device) -> None:
    """Two batches of all stages of a guided cascade.

    Labels are uploaded at its start; at its end one number tells whether all images are finite.
    """
    cascade = stirred(joint_spec(2)).to(device).eval()
    if half:
        cascade.to(torch.bfloat16)
    request: dict[str, Any] = {"batch_size": 2, "guidance": 2.0}
    cascade.sample(4, **request)
    with never_waits(torch.device("cpu"), reads=1):
        images = cascade.sample(4, seed=1, **request)
    assert images.isfinite().all()


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.sum() > 0),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: float(x.sum()),
        lambda x: x.sum().tolist(),
        lambda x: torch.masked_select(x, x > 0),
        lambda x: x.cpu(),
        lambda x: x.index_put_((x > 0,), x.sum()),
    ],
)
def test_the_guard_detects_waiting(wait: Any) -> None:
    with pytest.raises(Waited), never_waits(torch.device("cpu")):
        wait(torch.ones(3))


def test_the_guard_of_a_gpu_detects_waiting(cuda: torch.device) -> None:
    values = torch.ones(3, device=cuda)
    with pytest.raises(RuntimeError, match="synchroniz"), never_waits(cuda):
        values.cpu()
    assert torch.cuda.get_sync_debug_mode() == 0
