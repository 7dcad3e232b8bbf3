"""Sums of losses, kept on the device until they are read."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor

from cascadezoo.errors import TrainingError

__all__ = ["LossSums", "check_finite"]


class LossSums:
    """Adds up losses by name without waiting for the device.

    Args:
        shared: read the means over all processes, which then read together.

    Attributes:
        count: number of steps since the last :meth:`take`.
        flags: further scalar tensors that the next :meth:`read` or :meth:`take` reads.
        finite: these tensors as they were read last.
    """

    def __init__(self, *, shared: bool = False) -> None:
        self.shared = shared
        self.count = 0
        self.flags: dict[str, Tensor] = {}
        self.finite: dict[str, float] = {}
        self._sums: dict[str, Tensor] = {}

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Add the losses of a step: scalar tensors."""
        names = list(losses)
        values = [losses[name].float() for name in names]
        if list(self._sums) == names:
            torch._foreach_add_(list(self._sums.values()), values)
        else:
            for name, value in zip(names, values, strict=True):
                old = self._sums.get(name)
                self._sums[name] = value.clone() if old is None else old + value
        self.count += 1

    def read(self) -> dict[str, float]:
        """The means since the last :meth:`take`; waits for the device once."""
        if not self._sums:
            return {}
        means = torch.stack(list(self._sums.values())) / self.count
        if self.flags:
            means = torch.cat([means, torch.stack(list(self.flags.values())).float()])
        if self.shared and dist.is_available() and dist.is_initialized():
            dist.all_reduce(means)
            means /= dist.get_world_size()
        values = means.tolist()
        self.finite = dict(zip(self.flags, values[len(self._sums) :], strict=True))
        return dict(zip(self._sums, values, strict=False))

    def take(self) -> dict[str, float]:
        """Return the means and reset the sums."""
        means = self.read()
        self._sums, self.count, self.flags = {}, 0, {}
        return means


def check_finite(phase: str, step: int, losses: Mapping[str, float]) -> None:
    """Raise a TrainingError that names the losses that are NaN or infinite."""
    faults = [f"{name} is {value}" for name, value in losses.items() if not math.isfinite(value)]
    if faults:
        raise TrainingError(
            f"phase {phase!r}, up to step {step + 1}: {'; '.join(faults)}",
            hint="lower the learning rate, clip gradients (training.clip_norm), or use "
            "--precision fp32; the last checkpoint is older and intact",
            code="training-loss-not-finite",
            name=phase,
            losses=tuple(faults),
        )
