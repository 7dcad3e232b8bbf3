"""Weights of a diffusers ``AutoencoderKL``, compared with the network before they are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from cascadezoo.errors import ModelError, Problem, SpecError
from cascadezoo.stages.autoencoder_kl.config import ARCHITECTURE, AutoencoderKLConfig
from cascadezoo.stages.autoencoder_kl.files import KIND

__all__ = ["check_architecture", "load_weights", "modern_name"]

# What diffusers called the layers of attention before version 0.17.
_OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def check_architecture(config: AutoencoderKLConfig, found: dict[str, Any], where: str) -> None:
    """Hold the config against the architecture that the source states.

    Raises:
        SpecError: with every field that differs, and what to write.
    """
    problems = [
        Problem(
            field,
            f"is {getattr(config, field)!r}, but {where} has {found[field]!r}",
            f'write "{field}": {json.dumps(found[field])}',
            code="source-differs",
        )
        for field in ARCHITECTURE
        if getattr(config, field) != found[field]
    ]
    if problems:
        raise SpecError(
            problems,
            source=f"the config of {KIND}",
            hint="the fields of the config must be those of the source",
        )


def modern_name(name: str) -> str:
    """A parameter's name as diffusers writes it today."""
    parts = name.split(".")
    if "attentions" not in parts:
        return name
    return ".".join(_OLD_NAMES.get(part, part) for part in parts)


def load_weights(network: nn.Module, path: Path) -> None:
    """Copy a safetensors file into the network; other floating types become float32.

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
                            f"{KIND}: {old} in {path} is not made of finite numbers",
                            hint="the file is damaged; fetch it again",
                            code="model-source-not-finite",
                            path=path,
                        )
                    wanted[new].copy_(tensor)
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{KIND}: {path} is not a readable safetensors file: {error}",
            hint="fetch it again",
            code="model-source-unreadable",
            path=path,
        ) from error


def _compare(
    path: Path, wanted: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]]
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
            f"{KIND}: {path} does not fit its config.json: {'; '.join(faults[:5])}{more}",
            hint="the two files are not of one AutoencoderKL; fetch both again",
            code="model-source-mismatch",
            path=path,
        )
