"""Exponential moving average of weights (Polyak averaging), updated by foreach kernels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from cascadezoo.spec import EmaSpec

__all__ = ["Ema", "make_ema"]


class Ema:
    """The average of the weights over a phase.

    Args:
        parameters: the trained parameters by name.
        decay: how much of the average is kept at each step, in [0, 1).
        warmup: use ``min(decay, (1 + step) / (10 + step))``.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], decay: float, *, warmup: bool
    ) -> None:
        self.decay = decay
        self.warmup = warmup
        self.names = list(parameters)
        self.parameters: list[Tensor] = list(parameters.values())
        self.shadow = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the weights after ``step`` (from 0) into the average."""
        decay = min(self.decay, (1 + step) / (10 + step)) if self.warmup else self.decay
        torch._foreach_lerp_(self.shadow, self.parameters, 1.0 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange weights and average."""
        for parameter, shadow in zip(self.parameters, self.shadow, strict=True):
            kept = parameter.detach().clone()
            parameter.copy_(shadow)
            shadow.copy_(kept)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the averaged weights inside the block, and its own after it."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def state_dict(self) -> dict[str, Tensor]:
        """The averages by parameter name."""
        return dict(zip(self.names, self.shadow, strict=True))

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take averages by parameter name."""
        for name, shadow in zip(self.names, self.shadow, strict=True):
            shadow.copy_(state[name])


def make_ema(spec: EmaSpec | None, stages: Mapping[str, nn.Module]) -> Ema | None:
    """The average over all trained parameters of some stages; None where there are none."""
    if spec is None:
        return None
    parameters: dict[str, nn.Parameter] = {
        f"{name}.{key}": parameter
        for name, stage in stages.items()
        for key, parameter in stage.named_parameters()
        if parameter.requires_grad and parameter.is_floating_point()
    }
    return Ema(parameters, spec.decay, warmup=spec.warmup) if parameters else None
