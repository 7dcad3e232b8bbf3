"""Weights on disk: safetensors only, compared with the spec before memory is allocated."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

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
from cascadezoo.errors import InputError, ModelError, ResourceError
from cascadezoo.util.files import open_regular, opened_path, system_error
from cascadezoo.util.limits import LARGEST_HEADER
from cascadezoo.util.text import clean_remote

__all__ = [
    "HALVES",
    "bounded_build",
    "check_room",
    "check_whole",
    "load_state",
    "save_state",
    "save_tensors",
    "storable",
]

MAX_PARTS = 100_000
"""Maximum number of modules, parameters and buffers; the largest known models have thousands."""

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
"""The half-precision types that float32 weights may be stored in."""


def storable(value: Any) -> bool:
    """Whether a value is a tensor of a type that models may contain."""
    return isinstance(value, Tensor) and value.dtype in _DTYPES.values()


def save_state(state: Mapping[str, Tensor], path: Path, dtype: torch.dtype | None = None) -> None:
    """Write tensors to one safetensors file. Shared tensors are written once per name.

    Args:
        state: tensors by name.
        path: the file.
        dtype: the type that float32 tensors are rounded to; None keeps them.

    Raises:
        OSError: the file cannot be written.
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
    save_tensors(rows, path, {"format": "pt"})


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file.

    Args:
        tensors: contiguous tensors on the CPU that share no memory.
        path: the file.
        metadata: texts for its header.

    Raises:
        OSError: the file cannot be written. The library's own error is no OSError.
    """
    try:
        save_file(tensors, path, metadata=metadata)
    except SafetensorError as error:
        cause = system_error(error)
        if cause is None:
            raise
        raise OSError(cause.errno, cause.strerror, str(path)) from error


def load_state(
    module: nn.Module,
    path: Path,
    device: torch.device | str,
    *,
    hint: str | None = None,
    opened: BinaryIO | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Load a safetensors file into a module on the meta device.

    Names, shapes and types in the file's header are checked before any tensor is read. The tensors
    are assigned without a copy. They are converted to another type one by one.

    Args:
        module: the module to load into.
        path: the file.
        device: the device of the tensors.
        hint: the hint of the error if the file contains different tensors.
        opened: the open file, for a path that :func:`open_regular` does not open by itself.
        dtype: the type that the module is converted to; None keeps its types.

    Raises:
        InputError: a weight is too large for the type.
        ModelError: the file is missing, is not a safetensors file, is a link, or contains
            different tensors.
    """
    expected = module.state_dict()
    try:
        with (
            opened or open_regular(path.parent, path.name) as content,
            _safetensors(content, path, device) as file,
        ):
            names = list(file.keys())
            stored = {}
            for name in names:
                part = file.get_slice(name)
                stored[name] = (tuple(part.get_shape()), _DTYPES.get(part.get_dtype()))
            _compare(path, expected, stored, hint)
            if dtype is not None:
                module.to(dtype)
            types = {name: tensor.dtype for name, tensor in module.state_dict().items()}
            state = {name: _converted(name, file.get_tensor(name), types[name]) for name in names}
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


def _converted(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    if dtype == tensor.dtype:
        return tensor
    converted = tensor.to(dtype)
    if dtype == torch.float16 and not bool(torch.isfinite(converted).all()):
        raise InputError(
            f"{name} has values that are too large for fp16",
            hint="choose bf16",
            code="input-weights-overflow",
            name=name,
        )
    return converted


@contextmanager
def _safetensors(content: BinaryIO, path: Path, device: torch.device | str) -> Iterator[Any]:
    """Read an open safetensors file, of which no other file can take the place."""
    _check_header(content, path)
    with safe_open(opened_path(content), framework="pt", device=str(device)) as file:
        yield file


def _check_header(file: BinaryIO, path: Path) -> None:
    """Check the claimed length of the header before a reader allocates memory for it."""
    head = file.read(_HEAD + 1)
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(head[:_HEAD], "little")
    if len(head) <= _HEAD or head[_HEAD:] != b"{" or length > size - _HEAD:
        fault = "its header is invalid"
    elif length > LARGEST_HEADER:
        fault = f"its header has {length} bytes, more than the maximum of {LARGEST_HEADER}"
    else:
        return
    raise ModelError(
        f"{path} is not a readable safetensors file: {fault}",
        hint="pull or copy the model again; only safetensors files are loaded",
        code="model-weights-unreadable",
        path=path,
    )


def _reasons(expected: Mapping[str, Tensor], stored: Mapping[str, Any]) -> dict[str, str]:
    """One word for the fault of each tensor."""
    reasons = {name: "missing" for name in expected if name not in stored}
    for name, (shape, dtype) in stored.items():
        if name not in expected:
            reasons[clean_remote(name, 80)] = "unknown"
        elif shape != tuple(expected[name].shape):
            reasons[name] = "shape"
        elif dtype != expected[name].dtype:
            reasons[name] = "dtype"
    return reasons


def _compare(
    path: Path, expected: Mapping[str, Tensor], stored: Mapping[str, Any], hint: str | None
) -> None:
    faults = [f"{name} is missing" for name in expected if name not in stored]
    unknown = (clean_remote(name, 80) for name in stored if name not in expected)
    faults += [f"{name} is not part of the stage" for name in unknown]
    for name, tensor in expected.items():
        if name not in stored:
            continue
        shape, dtype = stored[name]
        if shape != tuple(tensor.shape):
            faults.append(f"{name} has shape {list(shape)}, not {list(tensor.shape)}")
        elif dtype != tensor.dtype and not (
            tensor.dtype == torch.float32 and dtype in HALVES.values()
        ):
            faults.append(f"{name} is {dtype}, not {tensor.dtype}")
    if faults:
        more = f" (and {len(faults) - 5} more)" if len(faults) > 5 else ""
        raise ModelError(
            f"{path} does not match its spec: {'; '.join(faults[:5])}{more}",
            hint=hint
            or "the weights and config.json belong to different models; pull or copy it again",
            code="model-weights-mismatch",
            path=path,
            tensors=_reasons(expected, stored),
        )


@contextmanager
def bounded_build(model: str, limit: int = MAX_PARTS) -> Iterator[None]:
    """A context that limits the number of parts of the modules that are built in it.

    On the meta device tensors need no memory, but modules and their names do.

    Args:
        model: the name of the model, for messages.
        limit: maximum number of modules, parameters and buffers.

    Raises:
        ModelError: a config defines more layers than any real model has.
    """
    thread = threading.get_ident()
    count = 0

    def count_one(*_: object) -> None:
        nonlocal count
        if threading.get_ident() != thread:
            return
        count += 1
        if count > limit:
            raise ModelError(
                f"{model} has more than {limit} layers and tensors",
                hint="no real model has that many; its config.json is damaged",
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


def check_room(size: int, model: str, device: torch.device | str) -> None:
    """Check that weights fit into the memory of a device, before they are read.

    Args:
        size: the size of the files in bytes. :func:`load_state` refuses a config that claims more
            than they contain.
        model: the model's name.
        device: the device of the weights.

    Raises:
        ResourceError: the weights do not fit.
    """
    home = torch.device(device)
    hint = "load it on another machine or device"
    if home.type == "cuda":
        available = torch.cuda.get_device_properties(home).total_memory
        if size > available:
            raise ResourceError(
                f"the weights of {model} need {size / 2**30:,.1f} GiB of memory; {home} has "
                f"{available / 2**30:,.1f} GiB",
                hint=hint,
                code="resources-weights",
                needed=size,
                available=available,
            )
    else:
        require_memory(size, f"the weights of {model}", hint=hint)


def check_whole(stage: nn.Module, name: str, model: str) -> None:
    """Check that no tensor of a loaded stage is still on the meta device.

    Raises:
        ModelError: the saved weights lack a tensor.
    """
    missing = [n for n, t in (*stage.named_parameters(), *stage.named_buffers()) if t.is_meta]
    if missing:
        raise ModelError(
            f"cannot load stage {name!r} of {model}: {', '.join(missing[:3])} is not saved",
            hint='its implementation must create unsaved buffers with an explicit device="cpu"',
            code="model-state-unsaved",
            name=name,
        )
