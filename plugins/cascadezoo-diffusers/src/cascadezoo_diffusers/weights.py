"""Weights of diffusers' models, compared with the network before they are read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from cascadezoo.errors import ModelError

__all__ = ["load_weights", "modern_name"]

# What diffusers called the layers of attention before version 0.17.
_OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def modern_name(name: str) -> str:
    """A parameter's name as diffusers writes it today."""
    parts = name.split(".")
    if "attentions" not in parts:
        return name
    return ".".join(_OLD_NAMES.get(part, part) for part in parts)


def load_weights(network: nn.Module, path: Path) -> None:
    """Copy a safetensors file into a network; other floating types become float32.

    Raises:
        ModelError: the file cannot be read, holds other tensors than the network has, or numbers
            that are not finite.
    """
    wanted = network.state_dict()
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            names = {modern_name(name): name for name in file.keys()}  # noqa: SIM118
            shapes = {new: tuple(file.get_slice(old).get_shape()) for new, old in names.items()}
            _compare(path, {name: tuple(t.shape) for name, t in wanted.items()}, shapes)
            with torch.no_grad():
                for new, old in names.items():
                    tensor = file.get_tensor(old)
                    if not (tensor.is_floating_point() and bool(tensor.isfinite().all())):
                        raise ModelError(
                            f"{old} in {path} is not made of finite numbers",
                            hint="the file is damaged; fetch it again",
                            code="model-source-not-finite",
                            path=path,
                        )
                    wanted[new].copy_(tensor)
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path} is not a readable safetensors file: {error}",
            hint="fetch it again",
            code="model-source-unreadable",
            path=path,
        ) from error


def _compare(
    path: Path, wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]
) -> None:
    faults = [f"{name} is missing" for name in wanted if name not in found]
    faults += [f"{name} is not part of the network" for name in found if name not in wanted]
    faults += [
        f"{name} has shape {list(found[name])}, not {list(shape)}"
        for name, shape in wanted.items()
        if name in found and found[name] != shape
    ]
    if faults:
        more = f" (and {len(faults) - 5} more)" if len(faults) > 5 else ""
        raise ModelError(
            f"{path} does not fit its config.json: {'; '.join(faults[:5])}{more}",
            hint="the two files are not of one model; fetch both again",
            code="model-source-mismatch",
            path=path,
        )
