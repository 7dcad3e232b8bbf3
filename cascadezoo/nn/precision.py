"""What devices compute in bfloat16, and data types by their short names."""

from __future__ import annotations

from collections.abc import Mapping

import torch

__all__ = ["DTYPES", "accelerates_bf16", "supports_bf16"]

DTYPES: Mapping[str, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}

# PyTorch has no public function for this. Versions from 2.9 have these; a missing one means no.
_CPU_CHECKS = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")


def supports_bf16(device: torch.device) -> bool:
    """Whether a device computes in bf16 at all, possibly by emulation."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    if device.type == "mps":
        return bool(torch.backends.mps.is_macos_or_newer(14, 0))
    return True


def accelerates_bf16(device: torch.device) -> bool:
    """Whether a device has instructions for bf16, so that it is faster there than float32.

    On a CPU these are avx512_bf16 and AMX, as PyTorch reports them. They only help with oneDNN.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if device.type != "cpu" or not onednn:
        return False
    checks = (getattr(torch.cpu, name, None) for name in _CPU_CHECKS)
    return any(check is not None and bool(check()) for check in checks)
