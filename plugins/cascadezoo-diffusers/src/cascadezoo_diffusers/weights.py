"""Weights of diffusers' models, compared with the network before loading."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from cascadezoo.errors import ModelError

__all__ = ["load_weights", "modern_name"]

# Names of attention layers in diffusers before version 0.17.
_OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def modern_name(name: str) -> str:
    """A parameter's name in current versions of diffusers."""
    parts = name.split(".")
    if "attentions" not in parts:
        return name
    return ".".join(_OLD_NAMES.get(part, part) for part in parts)


def load_weights(network: nn.Module, path: Path) -> None:
    """Copy a safetensors file into a network; other floating types become float32.

    Raises:
        ModelError: the file cannot be read, its tensors are not those of the network, or a number
            is not finite.
    """
    state = network.state_dict()
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            names = {modern_name(name): name for name in file.keys()}  # noqa: SIM118
            shapes = {new: tuple(file.get_slice(old).get_shape()) for new, old in names.items()}
            _compare(path, {name: tuple(t.shape) for name, t in state.items()}, shapes)
            with torch.no_grad():
                for new, old in names.items():
                    tensor = file.get_tensor(old)
                    if not (tensor.is_floating_point() and bool(tensor.isfinite().all())):
                        raise ModelError(
                            f"{old} in {path} has NaN, infinite or integer values",
                            hint="the file is damaged; download it again",
                            code="model-source-not-finite",
                            path=path,
                        )
                    state[new].copy_(tensor)
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path} is not a readable safetensors file: {error}",
            hint="download it again",
            code="model-source-unreadable",
            path=path,
        ) from error


def _compare(
    path: Path, expected: Mapping[str, tuple[int, ...]], actual: Mapping[str, tuple[int, ...]]
) -> None:
    problems = [f"{name} is missing" for name in expected if name not in actual]
    problems += [f"{name} is not part of the network" for name in actual if name not in expected]
    problems += [
        f"{name} has shape {list(actual[name])}, not {list(shape)}"
        for name, shape in expected.items()
        if name in actual and actual[name] != shape
    ]
    if problems:
        more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
        raise ModelError(
            f"{path} does not fit its config.json: {'; '.join(problems[:5])}{more}",
            hint="the two files are of different models; download both again",
            code="model-source-mismatch",
            path=path,
        )
