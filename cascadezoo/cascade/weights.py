"""Weights on disk: safetensors only, compared with the spec before memory is allocated."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from cascadezoo.data.memory import require_memory
from cascadezoo.errors import ModelError, ResourceError
from cascadezoo.util.limits import LARGEST_HEADER
from cascadezoo.util.text import clean_remote

__all__ = ["HALVES", "bounded_build", "check_room", "check_whole", "load_state", "save_state"]

MOST_PARTS = 100_000
"""Modules, parameters and buffers of a cascade; the largest known have a few thousand."""

_HEAD = 8

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


HALVES: Mapping[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""The types that float32 weights may be stored in."""


def save_state(state: Mapping[str, Tensor], path: Path, dtype: torch.dtype | None = None) -> None:
    """Write tensors as one safetensors file; tensors that share memory are written each.

    Args:
        state: tensors by name.
        path: the file.
        dtype: what float32 tensors are rounded to; None keeps them.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    seen: set[int] = set()
    rows = {}
    for name, tensor in state.items():
        tensor = tensor.detach().cpu().contiguous()
        if dtype is not None and tensor.dtype == torch.float32:
            tensor = tensor.to(dtype)
        if tensor.untyped_storage().data_ptr() in seen:
            tensor = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
        rows[name] = tensor
    save_file(rows, path, metadata={"format": "pt"})


def load_state(
    module: nn.Module, path: Path, device: torch.device | str, *, hint: str | None = None
) -> None:
    """Load a safetensors file into a module that is on the meta device.

    Names, shapes and types are compared with the file's header first; only then are tensors read,
    and taken as they are, so that no memory is filled twice. Weights that are stored in half
    precision become float32 again, one tensor at a time.

    Args:
        module: what the tensors become part of.
        path: the file.
        device: where the tensors go.
        hint: what to do where the file holds other tensors.

    Raises:
        ModelError: the file is missing, no safetensors file, or holds other tensors.
    """
    wanted = module.state_dict()
    try:
        _check_header(path)
        with safe_open(path, framework="pt", device=str(device)) as file:
            names = list(file.keys())
            found = {}
            for name in names:
                part = file.get_slice(name)
                found[name] = (tuple(part.get_shape()), _DTYPES.get(part.get_dtype()))
            _compare(path, wanted, found, hint)
            state = {name: file.get_tensor(name).to(wanted[name].dtype) for name in names}
    except FileNotFoundError:
        raise ModelError(
            f"{path} is missing",
            hint="pull or copy the model again",
            code="model-file-missing",
            path=path,
        ) from None
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path} is not a readable safetensors file: {clean_remote(error, 200)}",
            hint="pull or copy the model again",
            code="model-weights-unreadable",
            path=path,
        ) from error
    module.load_state_dict(state, strict=True, assign=True)


def _check_header(path: Path) -> None:
    """Look at the head of a file, so that no reader makes room for what it only claims to hold."""
    with path.open("rb") as file:
        head = file.read(_HEAD + 1)
        size = os.fstat(file.fileno()).st_size
    said = int.from_bytes(head[:_HEAD], "little")
    if len(head) <= _HEAD or head[_HEAD:] != b"{" or said > size - _HEAD:
        fault = "it does not begin as one does"
    elif said > LARGEST_HEADER:
        fault = f"its header has {said} bytes, more than the {LARGEST_HEADER} that one may have"
    else:
        return
    raise ModelError(
        f"{path} is not a readable safetensors file: {fault}",
        hint="pull or copy the model again; nothing but safetensors is ever opened",
        code="model-weights-unreadable",
        path=path,
    )


def _reasons(wanted: Mapping[str, Tensor], found: Mapping[str, Any]) -> dict[str, str]:
    """What is wrong with each tensor, in one word."""
    reasons = {name: "missing" for name in wanted if name not in found}
    for name, (shape, dtype) in found.items():
        if name not in wanted:
            reasons[clean_remote(name, 80)] = "unknown"
        elif shape != tuple(wanted[name].shape):
            reasons[name] = "shape"
        elif dtype != wanted[name].dtype:
            reasons[name] = "dtype"
    return reasons


def _compare(
    path: Path, wanted: Mapping[str, Tensor], found: Mapping[str, Any], hint: str | None
) -> None:
    faults = [f"{name} is missing" for name in wanted if name not in found]
    strange = (clean_remote(name, 80) for name in found if name not in wanted)
    faults += [f"{name} is not part of the stage" for name in strange]
    for name, tensor in wanted.items():
        if name not in found:
            continue
        shape, dtype = found[name]
        if shape != tuple(tensor.shape):
            faults.append(f"{name} has shape {list(shape)}, not {list(tensor.shape)}")
        elif dtype != tensor.dtype and not (
            tensor.dtype == torch.float32 and dtype in HALVES.values()
        ):
            faults.append(f"{name} is {dtype}, not {tensor.dtype}")
    if faults:
        more = f" (and {len(faults) - 5} more)" if len(faults) > 5 else ""
        raise ModelError(
            f"{path} does not fit its spec: {'; '.join(faults[:5])}{more}",
            hint=hint or "the weights and config.json are not of one model; pull or copy it again",
            code="model-weights-mismatch",
            path=path,
            tensors=_reasons(wanted, found),
        )


@contextmanager
def bounded_build(model: str, most: int = MOST_PARTS) -> Iterator[None]:
    """Within it, a module that is built of too many parts is refused before memory is full.

    On the meta device tensors cost nothing, however large; modules and their names do.

    Args:
        model: how messages name it.
        most: how many modules, parameters and buffers there may be.

    Raises:
        ModelError: a config asks for more layers than any model has.
    """
    thread = threading.get_ident()
    count = 0

    def count_one(*_: object) -> None:
        nonlocal count
        if threading.get_ident() != thread:
            return
        count += 1
        if count > most:
            raise ModelError(
                f"{model} has more than {most} layers and tensors",
                hint="no model that could be sampled from has; its config.json is at fault",
                code="model-too-many-tensors",
            )

    hooks = (
        register_module_module_registration_hook(count_one),
        register_module_parameter_registration_hook(count_one),
        register_module_buffer_registration_hook(count_one),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def check_room(files: Iterable[Path], model: str, device: torch.device | str) -> None:
    """Whether the weights in files fit into a device's memory; asked before any is read.

    What a config claims beyond them is found by :func:`load_state`, which makes room for nothing
    that a file does not hold.

    Raises:
        ResourceError: they do not.
    """
    size = sum(path.stat().st_size for path in files)
    home = torch.device(device)
    hint = "load it on another machine or device"
    if home.type == "cuda":
        have = torch.cuda.get_device_properties(home).total_memory
        if size > have:
            raise ResourceError(
                f"the weights of {model} need {size / 2**30:,.1f} GiB of memory; {home} has "
                f"{have / 2**30:,.1f} GiB",
                hint=hint,
                code="resources-weights",
                needed=size,
                available=have,
            )
    else:
        require_memory(size, f"the weights of {model}", hint=hint)


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
            code="model-state-unsaved",
            name=name,
        )
