"""Devices by name."""

from __future__ import annotations

import os

import torch

from cascadezoo.errors import InputError

__all__ = ["existing_device", "pick_device"]


def existing_device(device: torch.device | str) -> torch.device:
    """The device of a name; ``auto`` is the GPU if the machine has one.

    Args:
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N``, ``mps``, ``meta``, or another device of
            PyTorch, which is not checked.

    Raises:
        InputError: PyTorch does not know the device, or this machine lacks it.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    name = str(device)
    try:
        found = torch.device(device)
    except RuntimeError:
        raise InputError(
            f"unknown device {name!r}",
            hint="use auto, cpu, cuda, cuda:N or mps",
            code="input-device-unknown",
            name=name,
        ) from None
    if found.type == "cuda":
        count = torch.cuda.device_count()
        if (found.index or 0) >= count:
            raise InputError(
                f"device {name!r} is missing: PyTorch finds {count} CUDA devices",
                hint="run `cascadezoo doctor` to list the devices, or use the device cpu",
                code="input-device-missing",
                name=name,
            )
    elif found.type == "mps" and not torch.backends.mps.is_available():
        raise InputError(
            "device 'mps' is missing",
            hint="use the device cpu",
            code="input-device-missing",
            name="mps",
        )
    return found


def pick_device(name: str = "auto") -> torch.device:
    """The device of a name, for training and evaluation.

    Raises:
        InputError: the device is unknown, unsupported or missing.
    """
    device = existing_device(name)
    if device.type not in ("cpu", "cuda", "mps"):
        raise InputError(
            f"device {name!r} is not supported",
            hint="use auto, cpu, cuda or mps",
            code="input-device-unsupported",
            name=name,
        )
    return device
