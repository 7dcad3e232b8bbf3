"""Blocks whose activations are recomputed in the backward pass."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from cascadezoo.nn.compiled import COMPILED_BLOCKS

__all__ = ["recompute_blocks", "recomputed_blocks"]


def recomputed_blocks(network: nn.Module) -> list[nn.Module]:
    """The blocks of :data:`COMPILED_BLOCKS` in a network, without blocks inside of others."""
    blocks = {m: None for m in network.modules() if isinstance(m, COMPILED_BLOCKS)}
    inner = {m for block in blocks for m in block.modules() if m is not block}
    return [block for block in blocks if block not in inner]


def recompute_blocks(network: nn.Module) -> int:
    """Let every block keep only its inputs in training, and compute again what the backward needs.

    Activation checkpointing (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost").
    Gradients are the same, also with dropout: the random state is restored. Parameters keep their
    names. Without gradients or outside of training, blocks run as before.

    Args:
        network: its blocks get another forward.

    Returns:
        The number of blocks.
    """
    blocks = recomputed_blocks(network)
    for block in blocks:
        block.forward = functools.partial(_recomputed, block)
    return len(blocks)


def _recomputed(block: nn.Module, *args: Any, **kwargs: Any) -> Any:
    forward = functools.partial(type(block).forward, block)
    if not block.training or not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)
