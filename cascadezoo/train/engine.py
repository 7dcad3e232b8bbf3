"""The Accelerate engine: device, precision, processes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

import torch
from accelerate.accelerator import Accelerator
from accelerate.state import AcceleratorState

from cascadezoo.errors import InputError
from cascadezoo.nn.precision import accelerates_bf16, supports_bf16
from cascadezoo.util.devices import pick_device
from cascadezoo.util.processes import join, process_count

__all__ = [
    "Precision",
    "describe_device",
    "make_accelerator",
    "pick_device",
    "pick_precision",
    "tune_backends",
]

Precision = Literal["fp32", "bf16", "fp16"]


def pick_precision(name: str, device: torch.device) -> Precision:
    """The precision of a name on a device.

    ``auto`` is bf16 on GPUs and CPUs with instructions for it, else fp32.

    Raises:
        InputError: the precision is unknown, or the device does not support it.
    """
    if name == "auto":
        return "bf16" if accelerates_bf16(device) else "fp32"
    if name == "fp16" and device.type != "cuda":
        raise InputError(
            f"fp16 training needs a CUDA device, not {device.type}",
            hint="use --precision bf16 or fp32",
            code="input-fp16-needs-cuda",
            name=device.type,
        )
    if name not in ("fp32", "bf16", "fp16"):
        raise InputError(
            f"unknown precision {name!r}",
            hint="use auto, fp32, bf16 or fp16",
            code="input-precision-unknown",
            name=name,
        )
    if name == "bf16" and not supports_bf16(device):
        raise InputError(
            f"{device.type} does not support bf16 here",
            hint="use --precision fp32",
            code="input-bf16-unsupported",
            name=device.type,
        )
    return name  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class _Setting:
    device: str
    precision: str


_current: _Setting | None = None


def make_accelerator(device: torch.device, precision: Precision) -> Accelerator:
    """An Accelerator for a device and precision.

    Accelerate keeps its state for the whole process and refuses another setting. Successive builds
    in one process may differ, so a new setting clears the state. Under torchrun this joins the
    group of all processes.
    """
    global _current
    setting = _Setting(str(device), precision)
    if _current is not None and _current != setting:
        AcceleratorState._reset_state(reset_partial_state=True)
    _current = setting
    if process_count() > 1:
        join(device)
    elif device.type != "cpu":
        os.environ["ACCELERATE_TORCH_DEVICE"] = str(device)
    mixed = "no" if precision == "fp32" else precision
    return Accelerator(cpu=device.type == "cpu", mixed_precision=mixed)


def tune_backends(device: torch.device, precision: str) -> None:
    """Set the process's CUDA arithmetic for a precision. Does nothing for other devices.

    With half precision, the remaining float32 matrix products and convolutions run in TF32, with
    10 bits of mantissa. ``fp32`` computes in full float32. cuDNN measures its algorithms once for
    each shape, unless deterministic algorithms are required.
    """
    if device.type != "cuda":
        return
    reduced = precision != "fp32"
    torch.backends.cuda.matmul.allow_tf32 = reduced
    torch.backends.cudnn.allow_tf32 = reduced
    torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()


def describe_device(device: torch.device) -> str:
    """The hardware in words, for metric cards."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{device.type}, {threads} thread{'s' if threads != 1 else ''}"
