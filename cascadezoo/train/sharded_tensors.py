"""Tensors that are divided among processes, and whole ones."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeGuard

from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

__all__ = ["place_like", "whole_tensor", "whole_value"]


def whole_value(value: Any, *, keep: bool) -> Any:
    """A nested state with whole tensors on the CPU in place of sharded ones.

    All processes call this together.

    Args:
        value: tensors, dicts and lists of them, and anything else.
        keep: whether to return the sharded tensors; otherwise they become None, which saves memory.
    """
    if _is_sharded(value):
        whole = whole_tensor(value)
        return whole.cpu() if keep else None
    if isinstance(value, Mapping):
        return {key: whole_value(item, keep=keep) for key, item in value.items()}
    if isinstance(value, list):
        return [whole_value(item, keep=keep) for item in value]
    return value


def place_like(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, divided as another tensor of its shape is; unchanged if that is not divided.

    Raises:
        RuntimeError: the shapes differ.
    """
    if not _is_sharded(like):
        return value
    if value.shape != like.shape:
        raise RuntimeError(f"size mismatch: {tuple(value.shape)} and {tuple(like.shape)}")
    from torch.distributed.tensor import distribute_tensor

    value = value.to(like.device)
    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)


def whole_tensor(value: Tensor) -> Tensor:
    """A tensor with its parts of all processes, which call this together."""
    return value.full_tensor() if _is_sharded(value) else value


def _is_sharded(value: object) -> TypeGuard[DTensor]:
    # The module takes a second to import, and no tensor is sharded before that.
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(value, module.DTensor)
