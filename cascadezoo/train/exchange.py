"""The exchange of gradients between processes by DistributedDataParallel."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cascadezoo.train.optim import GroupOptimizer

__all__ = ["GradientExchange"]


class _Trained(nn.Module):
    """Holds parameters that learn together. Its input is their loss, which it returns."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__()
        self.trained = nn.ParameterList(parameters)

    def forward(self, loss: Tensor) -> Tensor:
        """The loss itself."""
        return loss


class GradientExchange:
    """Averages the gradients of all processes while the backward pass runs.

    DistributedDataParallel expects one module with one backward pass. A step here runs several
    stages, skips some, and has a backward pass for each parameter group. So each set of parameters
    that always learns together has its own instance, and the loss passes through it just before the
    backward pass. Its hooks then send each bucket of gradients as soon as it is complete.
    Parameters without a gradient keep none.

    Args:
        optimizers: one for each parameter group of the phase.
    """

    def __init__(self, optimizers: Iterable[GroupOptimizer]) -> None:
        self._members: dict[str, list[tuple[int, DistributedDataParallel]]] = {}
        if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() < 2:
            return
        for group in optimizers:
            by_pace: dict[int, list[nn.Parameter]] = {}
            for every, row in zip(group.every, group.optimizer.param_groups, strict=True):
                by_pace.setdefault(every, []).extend(row["params"])
            self._members[group.group] = [
                (every, _distributed(parameters)) for every, parameters in by_pace.items()
            ]

    def watch(self, group: str, step: int, loss: Tensor) -> Tensor:
        """The loss, whose backward pass exchanges the gradients of the parameters that are due.

        With several backward passes per step, only the loss of the last one: it exchanges the sums
        of all.

        Args:
            group: the name of the parameter group.
            step: the step of the phase, from 0.
            loss: scalar, of this process's images.
        """
        for every, exchange in self._members.get(group, ()):
            if (step + 1) % every == 0:
                with warnings.catch_warnings():
                    # Some phases have unused parameters, others none; both are fine.
                    warnings.filterwarnings("ignore", "find_unused_parameters", UserWarning)
                    loss = exchange(loss)
        return loss


def _distributed(parameters: list[nn.Parameter]) -> DistributedDataParallel:
    return DistributedDataParallel(
        _Trained(parameters),
        find_unused_parameters=True,
        gradient_as_bucket_view=True,
    )
