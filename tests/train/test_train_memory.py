"""Peak memory of the process and of the device."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from errors_help import raises
from toys import toy_cascade
from train_cases import trainer

from cascadezoo.errors import TrainingError
from cascadezoo.train.memory import is_out_of_memory, peak_memory, reset_peak

CODE = """
import torch
from cascadezoo.train.memory import peak_memory
before = peak_memory(torch.device("cpu"))["process_peak_bytes"]
torch.ones(400 << 20, dtype=torch.uint8)
print(before, peak_memory(torch.device("cpu"))["process_peak_bytes"])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not report it")
def test_the_process_peak_counts_freed_memory() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert 32 << 20 < before < 8 << 30
    # The peak of the imports is part of it.
    assert 200 << 20 < after - before < 420 << 20


def test_a_cpu_has_no_device_peak() -> None:
    device = torch.device("cpu")
    reset_peak(device)
    assert "device_peak_bytes" not in peak_memory(device)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_peak_of_a_gpu_can_be_reset() -> None:
    device = torch.device("cuda")
    torch.empty(64 << 20, dtype=torch.uint8, device=device)
    assert peak_memory(device)["device_peak_bytes"] >= 64 << 20
    reset_peak(device)
    assert peak_memory(device)["device_peak_bytes"] < 64 << 20


def test_a_failed_allocation_on_a_cpu_is_a_clear_error() -> None:
    cascade = toy_cascade({"train": ["coarse"]})
    hook = cascade.stage("coarse").register_forward_pre_hook(
        lambda *_: torch.empty(1 << 55, dtype=torch.uint8)
    )
    with raises(TrainingError, "training-out-of-memory", name="p") as caught:
        trainer(cascade).run()
    assert "training.accumulate" in (caught.value.hint or "")
    hook.remove()
    trainer(cascade).run()


def test_other_errors_are_not_about_memory() -> None:
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    assert not is_out_of_memory(ValueError("can't allocate memory"))
