"""Memory: planned and measured use, out of memory, and the place of the images."""

from __future__ import annotations

import gc
import inspect
from typing import Any

import pytest
import torch
from errors_help import raises
from gpu_cases import (
    BATCH,
    autocast,
    deterministic,
    image_data,
    note,
    spec_of,
    state,
    train,
)

from cascadezoo.build.plan import Plan, make_plan
from cascadezoo.cascade.cascade import Cascade
from cascadezoo.data.loader import DeviceLoader
from cascadezoo.errors import TrainingError
from cascadezoo.spec import load_spec

LARGE = 128
STEPS = 3


def large_spec(precision: str = "fp32", batch: int = LARGE, channels: int = 88) -> dict[str, Any]:
    """A flow on a U-Net of about 10 M parameters at 32x32."""
    config = {"channels": channels, "multipliers": [1, 2, 2], "blocks": 2}
    return {
        "name": "large",
        "data": {"source": "shapes", "config": {"size": 32, "count": 32, "test_count": 8}},
        "stages": [{"name": "coarse", "kind": "flow.v1", "config": config}],
        "training": {
            "batch_size": batch,
            "precision": precision,
            "losses": [],
            "phases": [{"name": "coarse", "train": ["coarse"], "steps": STEPS}],
            "log_steps": 1000,
        },
        "evaluation": {"metrics": [], "extractor": "small"},
    }


def plan_of(spec: dict[str, Any], device: torch.device, precision: str) -> Plan:
    """The plan for a precision, if plans support one."""
    known = inspect.signature(make_plan).parameters
    more = {"precision": precision} if "precision" in known else {}
    return make_plan(load_spec(spec), device, **more)


def settled(device: torch.device) -> int:
    """Reset the peaks; return the memory allocated on the device."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def test_the_size_of_the_large_network() -> None:
    plan = make_plan(load_spec(large_spec()), "cpu")
    assert 9e6 < plan.parameters < 11e6
    note("plan", parameters=plan.parameters, training_mib=round(plan.training_bytes / 2**20))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_memory_of_a_training_step_is_as_planned(precision: str, cuda: torch.device) -> None:
    spec = large_spec(precision)
    planned = plan_of(spec, cuda, precision).training_bytes
    before = settled(cuda)
    cascade = Cascade.from_spec(spec, device=cuda)
    train(cascade, cuda, precision, data=image_data(STEPS, 32, LARGE))
    torch.cuda.synchronize()
    measured = torch.cuda.max_memory_allocated(cuda) - before
    note(
        f"memory of training {precision}",
        planned_mib=round(planned / 2**20, 1),
        measured_mib=round(measured / 2**20, 1),
        reserved_mib=round(torch.cuda.max_memory_reserved(cuda) / 2**20, 1),
        ratio=round(measured / planned, 3),
    )
    assert measured == pytest.approx(planned, rel=0.15)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_memory_of_sampling(precision: str, cuda: torch.device) -> None:
    spec = large_spec(precision)
    plan = plan_of(spec, cuda, precision)
    before = settled(cuda)
    cascade = Cascade.from_spec(spec, device=cuda).eval()
    with autocast(cuda, precision):
        cascade.sample(LARGE, batch_size=LARGE, steps=2)
    torch.cuda.synchronize()
    measured = torch.cuda.max_memory_allocated(cuda) - before
    planned = getattr(plan, "sampling_bytes", None)
    note(
        f"memory of sampling {precision}",
        planned_mib=None if planned is None else round(planned / 2**20, 1),
        measured_mib=round(measured / 2**20, 1),
        training_mib=round(plan.training_bytes / 2**20, 1),
    )
    if planned is None:
        assert plan.weights_bytes < measured < plan.training_bytes
    else:
        assert measured == pytest.approx(planned, rel=0.15)


def test_running_out_of_memory_is_a_clear_error(cuda: torch.device) -> None:
    spec = large_spec(batch=4096, channels=32)
    settled(cuda)
    # Limit the process to its memory and 1 GiB more; the batch needs several GiB.
    total = torch.cuda.get_device_properties(cuda).total_memory
    share = (torch.cuda.memory_reserved(cuda) + 2**30) / total
    torch.cuda.set_per_process_memory_fraction(share, cuda)
    try:
        cascade = Cascade.from_spec(spec, device=cuda)
        with raises(TrainingError, "training-out-of-memory") as caught:
            train(cascade, cuda, "fp32", data=image_data(1, 32, 4096))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, cuda)
    assert "batch_size" in str(caught.value.hint)
    del caught, cascade
    # The process can still train a smaller batch.
    cascade = Cascade.from_spec(large_spec(batch=8, channels=32), device=cuda)
    train(cascade, cuda, "fp32", data=image_data(STEPS, 32, 8))


# --- the place of the images


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("budget", [None, 0])
def test_batches_equal_those_of_a_cpu(budget: int | None, flip: bool, device: torch.device) -> None:
    data = image_data(4)
    common = {"batch_size": BATCH, "seed": 3, "flip": flip}
    host = DeviceLoader(data, device="cpu", **common)
    loader = DeviceLoader(data, device=device, budget_bytes=budget, **common)
    for epoch, index in ((0, 0), (0, 3), (2, 1)):
        images, labels = loader.batch(epoch, index)
        expected, numbers = host.batch(epoch, index)
        assert images.device.type == device.type
        assert torch.equal(images.cpu(), expected)
        assert torch.equal(labels.cpu(), numbers)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_does_not_depend_on_the_place_of_the_images(
    precision: str, cuda: torch.device, steps: int
) -> None:
    spec = spec_of("flow.v1", steps)
    with deterministic() as uncertain:
        one, two = (Cascade.from_spec(spec, device=cuda) for _ in range(2))
        train(one, cuda, precision)
        train(two, cuda, precision, budget_bytes=0)
    assert not uncertain
    first, second = state(one), state(two)
    assert all(torch.equal(first[k], second[k]) for k in first)
