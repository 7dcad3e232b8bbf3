"""Exponential moving average of weights (Polyak averaging), updated by foreach kernels."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from cascadezoo.spec import EmaSpec, PhaseSpec
from cascadezoo.stages.base import Stage
from cascadezoo.train.sharded_tensors import place_like
from cascadezoo.train.stage_state import averaged_buffers

__all__ = ["Ema", "ema_decay", "make_ema"]


class Ema:
    """The average of the weights over a phase.

    Args:
        parameters: the trained parameters and the averaged buffers by name.
        decay: the share of the average that each step keeps, in [0, 1); one number, or one for
            each name.
        warmup: use ``min(decay, (1 + step) / (10 + step))``.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        decay: float | Mapping[str, float],
        *,
        warmup: bool,
    ) -> None:
        self.warmup = warmup
        self.names = list(parameters)
        self.parameters: list[Tensor] = list(parameters.values())
        self.shadow = [p.detach().clone() for p in self.parameters]
        # Parameters may be divided among processes, which buffers never are.
        self._members: dict[tuple[float, bool], tuple[list[Tensor], list[Tensor]]] = {}
        for name, parameter, shadow in zip(self.names, self.parameters, self.shadow, strict=True):
            own = decay[name] if isinstance(decay, Mapping) else decay
            key = own, isinstance(parameter, nn.Parameter)
            shadows, weights = self._members.setdefault(key, ([], []))
            shadows.append(shadow)
            weights.append(parameter)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the average with the weights after ``step`` (from 0)."""
        most = (1 + step) / (10 + step) if self.warmup else 1.0
        for (decay, _), (shadows, weights) in self._members.items():
            torch._foreach_lerp_(shadows, weights, 1.0 - min(decay, most))

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange weights and average."""
        for parameter, shadow in zip(self.parameters, self.shadow, strict=True):
            kept = parameter.detach().clone()
            parameter.copy_(shadow)
            shadow.copy_(kept)

    def state_dict(self) -> dict[str, Tensor]:
        """The averages by parameter name."""
        return dict(zip(self.names, self.shadow, strict=True))

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load averages by parameter name."""
        for name, shadow in zip(self.names, self.shadow, strict=True):
            shadow.copy_(place_like(state[name], shadow))


def ema_decay(spec: EmaSpec | None, phase: PhaseSpec, stage: str) -> float | None:
    """The decay of a stage's average in a phase; None if the stage is not averaged."""
    own = phase.stages.get(stage)
    if own is not None and own.ema_decay is not None:
        return own.ema_decay
    return None if spec is None else spec.decay


def make_ema(spec: EmaSpec | None, phase: PhaseSpec, stages: Mapping[str, nn.Module]) -> Ema | None:
    """The average over the trained parameters of a phase's stages; None without such parameters.

    Stages may declare buffers that are averaged too (``Stage.averaged_buffers``).

    Args:
        spec: the setting of the training; None averages only stages with a decay in the phase.
        phase: the phase; its ``stages`` may set other decays.
        stages: the trained stages by name.
    """
    parameters: dict[str, Tensor] = {}
    decays: dict[str, float] = {}
    for name, stage in stages.items():
        decay = ema_decay(spec, phase, name)
        if decay is None:
            continue
        excluded = _not_averaged(stage)
        for key, parameter in stage.named_parameters():
            if not parameter.requires_grad or id(parameter) in excluded:
                continue
            if parameter.is_floating_point():
                parameters[f"{name}.{key}"] = parameter
                decays[f"{name}.{key}"] = decay
        for key, buffer in averaged_buffers(stage).items() if isinstance(stage, Stage) else ():
            parameters[f"{name}.{key}"] = buffer
            decays[f"{name}.{key}"] = decay
    warmup = EmaSpec().warmup if spec is None else spec.warmup
    return Ema(parameters, decays, warmup=warmup) if parameters else None


def _not_averaged(stage: nn.Module) -> set[int]:
    """The parameters of groups that are not averaged."""
    if not isinstance(stage, Stage):
        return set()
    options = stage.group_options()
    excluded = [group for group, own in options.items() if not own.averaged]
    groups = stage.parameter_groups()
    return {id(parameter) for group in excluded for parameter in groups[group]}
