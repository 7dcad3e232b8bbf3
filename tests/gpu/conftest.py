"""The device of the tests in this folder, and settings that are restored after each test."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

# cuBLAS reads this at its start; without it, products are not deterministic.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
# Several test processes share the cores.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "2")

import torch

NEEDS_CUDA = "needs a CUDA device"
# Warnings of a GPU or of another version of torch are not failures.
TOLERATED = (
    "ignore:Synchronization debug mode:UserWarning",
    "ignore:.*TF32.*:UserWarning",
    "ignore:.*deterministic.*:UserWarning",
    "default::UserWarning",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest tests first, so that no process of pytest-xdist ends with one."""
    own = [item for item in items if "/gpu/" in item.path.as_posix()]
    for item in own:
        for text in reversed(TOLERATED):
            item.add_marker(pytest.mark.filterwarnings(text))
    if len(own) == len(items):
        items.sort(key=lambda item: "compil" not in item.name and "memory" not in item.name)


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The GPU if available, else the CPU; ``GPU_TESTS_DEVICE=cpu`` selects the CPU."""
    requested = os.environ.get("GPU_TESTS_DEVICE", "auto")
    if requested == "cuda" or (requested == "auto" and torch.cuda.is_available()):
        return torch.device("cuda", 0)
    return torch.device("cpu")


@pytest.fixture
def cuda(device: torch.device) -> torch.device:
    """The GPU; skips the test without one."""
    if device.type != "cuda":
        pytest.skip(NEEDS_CUDA)
    return device


@pytest.fixture(scope="session")
def steps(device: torch.device) -> int:
    """Number of steps of the trainings: an even number."""
    return 20 if device.type == "cuda" else 4


@pytest.fixture(autouse=True)
def _settings() -> Iterator[None]:
    """Use full float32 by default, and restore the settings."""
    precision = torch.get_float32_matmul_precision()
    tf32, benchmark = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = benchmark
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
