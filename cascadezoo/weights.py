"""Weights on disk: safetensors only, compared with the spec before memory is allocated."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from cascadezoo.errors import ModelError

__all__ = ["check_whole", "load_state", "save_state"]

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def save_state(state: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors as one safetensors file; tensors that share memory are written each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seen: set[int] = set()
    rows = {}
    for name, tensor in state.items():
        tensor = tensor.detach().cpu().contiguous()
        if tensor.untyped_storage().data_ptr() in seen:
            tensor = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
        rows[name] = tensor
    save_file(rows, path, metadata={"format": "pt"})


def load_state(module: nn.Module, path: Path, device: torch.device | str) -> None:
    """Load a safetensors file into a module that is on the meta device.

    Names, shapes and types are compared with the file's header first; only then are tensors read,
    and taken as they are, so that no memory is filled twice.

    Raises:
        ModelError: the file is missing, no safetensors file, or holds other tensors.
    """
    wanted = module.state_dict()
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            names = list(file.keys())
            found = {}
            for name in names:
                part = file.get_slice(name)
                found[name] = (tuple(part.get_shape()), _DTYPES.get(part.get_dtype()))
            _compare(path, wanted, found)
            state = {name: file.get_tensor(name) for name in names}
    except FileNotFoundError:
        raise ModelError(f"{path} is missing", hint="pull or copy the model again") from None
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path} is not a readable safetensors file: {error}",
            hint="pull or copy the model again",
        ) from error
    module.load_state_dict(state, strict=True, assign=True)


def _compare(path: Path, wanted: Mapping[str, Tensor], found: Mapping[str, Any]) -> None:
    faults = [f"{name} is missing" for name in wanted if name not in found]
    faults += [f"{name} is not part of the stage" for name in found if name not in wanted]
    for name, tensor in wanted.items():
        if name not in found:
            continue
        shape, dtype = found[name]
        if shape != tuple(tensor.shape):
            faults.append(f"{name} has shape {list(shape)}, not {list(tensor.shape)}")
        elif dtype != tensor.dtype:
            faults.append(f"{name} is {dtype}, not {tensor.dtype}")
    if faults:
        more = f" (and {len(faults) - 5} more)" if len(faults) > 5 else ""
        raise ModelError(
            f"{path} does not fit its spec: {'; '.join(faults[:5])}{more}",
            hint="the weights and config.json are not of one model; pull or copy it again",
        )


def check_whole(stage: nn.Module, name: str, model: str) -> None:
    """Make sure that nothing of a loaded stage is still on the meta device.

    Raises:
        ModelError: with what was left out of the saved weights.
    """
    rest = [n for n, t in (*stage.named_parameters(), *stage.named_buffers()) if t.is_meta]
    if rest:
        raise ModelError(
            f"stage {name!r} of {model} cannot be loaded: {', '.join(rest[:3])} is not saved",
            hint='its implementation must make unsaved buffers with device="cpu" written out',
        )
