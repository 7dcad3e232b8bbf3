"""Every kind trains, samples, is saved and resumes, in every precision of the device."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from errors_help import raises
from gpu_cases import (
    DTYPES,
    KINDS,
    SIZE,
    StopAfter,
    autocast,
    built_in_kinds,
    deterministic,
    distance,
    flat,
    joint_spec,
    note,
    spec_of,
    state,
    train,
)

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.errors import StoppedError

pytestmark = pytest.mark.slow

DAY = datetime.now(tz=UTC).toordinal()
# Images of the loaded and the trained model: the layout of the weights may differ.
LOADED = {"fp32": 1e-4, "bf16": 2e-2, "fp16": 5e-3}
# Resumed and uninterrupted weights if an operator has no deterministic algorithm: Adam moves a
# weight by its learning rate even if the gradient is only rounding noise.
RESUMED = {"fp32": 5e-3, "bf16": 5e-2, "fp16": 2e-2}


def test_every_built_in_kind_is_tested() -> None:
    assert set(KINDS) == built_in_kinds()


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_trains_samples_is_saved_and_resumes(
    kind: str, precision: str, device: torch.device, steps: int, tmp_path: Path
) -> None:
    if device.type == "cpu" and (DAY + [*KINDS].index(kind)) % 2 != [*DTYPES].index(precision):
        pytest.skip("on a CPU each kind has one precision a day")
    check(f"{kind} {precision}", spec_of(kind, steps), precision, device, steps, tmp_path)


@pytest.mark.parametrize("precision", DTYPES)
def test_three_stages_that_train_jointly(
    precision: str, device: torch.device, steps: int, tmp_path: Path
) -> None:
    check(f"joint {precision}", joint_spec(steps), precision, device, steps, tmp_path)


def check(
    name: str, spec: object, precision: str, device: torch.device, steps: int, folder: Path
) -> None:
    if precision == "fp16" and device.type != "cuda":
        pytest.skip("needs a CUDA device")
    began = time.perf_counter()
    with deterministic() as uncertain:
        whole = Cascade.from_spec(spec, device=device)
        before = state(whole)
        train(whole, device, precision)
        after = state(whole)
        trained = whole.spec.training.phases[0].train
        for stage, member in whole.named_stages():
            key = f"{whole.names.index(stage)}."
            own = [k for k in after if k.startswith(key)]
            assert all(after[k].isfinite().all() for k in own), stage
            changed = any(not torch.equal(after[k], before[k]) for k in own)
            assert changed is (stage in trained and not member.config.parameterless), stage

        stopped = Cascade.from_spec(spec, device=device)
        with raises(StoppedError, "interrupted-training", step=steps // 2):
            train(stopped, device, precision, folder=folder, stop=StopAfter(steps // 2))
        # Other initial weights, so that only the checkpoint can give the right ones.
        resumed = Cascade.from_spec(spec, device=device, seed=99)
        train(resumed, device, precision, folder=folder)

        loaded = Cascade.from_pretrained(whole.save_pretrained(folder / "model"), device=device)
        with autocast(device, precision):
            images = whole.sample(4, seed=1)
            again = loaded.sample(4, seed=1)
    continued = state(resumed)
    same = all(torch.equal(continued[k], after[k]) for k in after)
    difference = distance(flat(list(continued.values())), flat(list(after.values())))
    off = distance(again, images)
    seconds = round(time.perf_counter() - began, 2)
    note(
        name,
        resumed=difference,
        loaded=off,
        seconds=seconds,
        uncertain=[t[:120] for t in uncertain],
    )
    if uncertain:
        assert difference < RESUMED[precision], uncertain
    else:
        assert same
    saved = state(loaded)
    assert all(torch.equal(saved[k], after[k]) for k in saved)
    assert images.shape == (4, 3, SIZE, SIZE)
    assert images.device.type == device.type
    assert images.dtype == torch.float32
    assert images.isfinite().all()
    assert images.abs().max() <= 1
    assert off <= LOADED[precision]
