"""The device of the tests in this folder, and settings that a test must not leave changed."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

# Read by cuBLAS when it starts; without it, products are not deterministic.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
# Several test processes share the cores.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "2")

import torch

NEEDS_CUDA = "needs a CUDA device"
# What a GPU or another version of torch warns of is no fault of the tests.
TOLERATED = (
    "ignore:Synchronization debug mode:UserWarning",
    "ignore:.*TF32.*:UserWarning",
    "ignore:.*deterministic.*:UserWarning",
    "default::UserWarning",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, so that no process of pytest-xdist is left with one at the end."""
    own = [item for item in items if "/gpu/" in item.path.as_posix()]
    for item in own:
        for text in reversed(TOLERATED):
            item.add_marker(pytest.mark.filterwarnings(text))
    if len(own) == len(items):
        items.sort(key=lambda item: "compil" not in item.name and "memory" not in item.name)


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The GPU where there is one, else the CPU; ``GPU_TESTS_DEVICE=cpu`` takes the CPU."""
    wanted = os.environ.get("GPU_TESTS_DEVICE", "auto")
    if wanted == "cuda" or (wanted == "auto" and torch.cuda.is_available()):
        return torch.device("cuda", 0)
    return torch.device("cpu")


@pytest.fixture
def cuda(device: torch.device) -> torch.device:
    """The GPU; skips where there is none."""
    if device.type != "cuda":
        pytest.skip(NEEDS_CUDA)
    return device


@pytest.fixture(scope="session")
def steps(device: torch.device) -> int:
    """How long the trainings are: an even number."""
    return 20 if device.type == "cuda" else 4


@pytest.fixture(autouse=True)
def _settings() -> Iterator[None]:
    """Float32 means float32 unless a test says otherwise; settings are put back."""
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
