"""Training with sharded weights, gradients, optimizer and average (FSDP2)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from cascadezoo.cascade.cascade import Cascade, channels_last
from cascadezoo.errors import InputError
from cascadezoo.nn.recompute import recomputed_blocks
from cascadezoo.train.sharded_tensors import place_like, whole_tensor

__all__ = ["ShardedCascade"]

Result = TypeVar("Result")


class _Root(nn.Module):
    """Runs a function while the weights outside of blocks are gathered."""

    def __init__(self, stages: nn.ModuleList) -> None:
        super().__init__()
        self.stages = stages

    def forward(self, compute: Callable[[], Any]) -> Any:
        """The function's result."""
        return compute()


class ShardedCascade:
    """A copy of a cascade whose weights are divided among the processes.

    Each residual, attention and DiT block is a unit of its own: its weights are gathered when it
    runs, forward and backward, and its gradients are averaged and divided as soon as they are
    complete. All other weights, and those of kinds without such blocks, are gathered for a whole
    step. The original cascade has no weights until :meth:`restore`, except inside :meth:`whole`.

    Args:
        cascade: the cascade; equal in all processes.
    """

    def __init__(self, cascade: Cascade) -> None:
        for name, stage in cascade.named_stages():
            for key, parameter in stage.named_parameters():
                if parameter.ndim == 0:
                    raise InputError(
                        f"training.parallel is 'fsdp', which cannot divide the parameter {key} of "
                        f"stage {name!r}: it is a single number",
                        hint="set training.parallel to ddp",
                        code="input-fsdp-scalar",
                        name=name,
                        parameter=key,
                    )
        self.original = cascade
        stages = []
        for _, stage in cascade.named_stages():
            # FSDP divides contiguous tensors only.
            stages.append(copy.deepcopy(stage).to(memory_format=torch.contiguous_format))
            _release(stage)
        self.cascade = Cascade(cascade.resolved, stages)
        mesh = init_device_mesh(cascade.device.type, (dist.get_world_size(),))
        self.blocks: list[FSDPModule] = [
            fully_shard(block, mesh=mesh)
            for stage in stages
            for block in recomputed_blocks(stage)
            if any(True for _ in block.parameters())
        ]
        self._run = _Root(self.cascade.stages)
        self.root: FSDPModule = fully_shard(self._run, mesh=mesh)
        # The first module that runs becomes the root of all.
        with torch.no_grad():
            self.run(dict)
        self.root.reshard()

    def run(self, compute: Callable[[], Result]) -> Result:
        """Call a function that runs stages of :attr:`cascade`; all processes do so together."""
        result: Result = self._run(compute)
        return result

    @contextmanager
    def whole(self) -> Iterator[Cascade]:
        """The original cascade with all weights, in every process; all enter the block together.

        Inside, each process may run stages on its own, in any number. The blocks of :attr:`cascade`
        must not run there: FSDP2 records the order of their calls and gathers weights ahead by it,
        so another number of calls in one process leaves the processes waiting for each other.
        Buffers that change inside the block are kept.
        """
        self.restore()
        try:
            yield self.original
            with torch.no_grad():
                for own, changed in self._buffers():
                    own.copy_(changed)
        finally:
            _release(self.original)

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Load the whole state of the stages; every process passes the same.

        Raises:
            RuntimeError: names or shapes differ.
        """
        own = self.cascade.stages.state_dict()
        placed = {k: place_like(v, own[k]) if k in own else v for k, v in state.items()}
        self.cascade.stages.load_state_dict(placed)

    @torch.no_grad()
    def restore(self) -> None:
        """Give the original cascade the trained weights, in every process."""
        for module in (self.root, *self.blocks):
            module.reshard()
        pairs = zip(self.original.parameters(), self.cascade.parameters(), strict=True)
        for original, trained in pairs:
            original.data = whole_tensor(trained.detach())
        for measured, buffer in self._buffers():
            buffer.copy_(measured)
        channels_last(self.original)

    def _buffers(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The buffers of the cascade, each with that of the original."""
        return zip(self.cascade.buffers(), self.original.buffers(), strict=True)


def _release(module: nn.Module) -> None:
    """Free the weights of a module."""
    for parameter in module.parameters():
        parameter.data = parameter.data.new_empty(0)
