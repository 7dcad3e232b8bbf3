"""The kernels of norm, scale, shift and SiLU, run by Triton's interpreter on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CHECK = """
import torch
import torch.nn.functional as F
from cascadezoo.nn.fused_norm import fused_norm_silu

torch.manual_seed(0)
for n, channels, groups, size, modulated in [
    (2, 8, 2, 4, True), (3, 12, 3, 5, False), (2, 56, 14, 4, True), (1, 24, 6, 1, False)
]:
    x = (3 + 2 * torch.randn(n, channels, size, size, dtype=torch.float64)).requires_grad_()
    weight, bias = (torch.randn(channels, dtype=torch.float64, requires_grad=True) for _ in "wb")
    modulation = torch.randn(n, 2 * channels, dtype=torch.float64, requires_grad=True)
    normal = F.group_norm(x, groups, weight, bias, 1e-5)
    leaves = [x, weight, bias]
    if modulated:
        scale, shift = modulation[:, :, None, None].chunk(2, dim=1)
        normal = normal * (1 + scale) + shift
        leaves.append(modulation)
    wanted = F.silu(normal)
    copies = [leaf.detach().float().requires_grad_() for leaf in leaves]
    made = fused_norm_silu(*copies[:3], copies[3] if modulated else None, groups, 1e-5)
    assert made.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(made.double(), wanted, rtol=1e-4, atol=1e-5)
    ahead = torch.randn_like(wanted)
    grads = torch.autograd.grad(made, copies, ahead.float())
    truth = torch.autograd.grad(wanted, leaves, ahead)
    for grad, true in zip(grads, truth, strict=True):
        torch.testing.assert_close(grad.double(), true, rtol=1e-4, atol=1e-4)
print("equal")
"""


def test_the_kernels_are_the_composition() -> None:
    pytest.importorskip("triton", reason="this build of PyTorch has no Triton")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHECK],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "equal"
