"""Optimizers and learning-rate schedules of a phase."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from cascadezoo.spec import OptimizerSpec, PhaseSpec, ScheduleSpec
from cascadezoo.stages.base import Stage

__all__ = ["GroupOptimizer", "make_optimizers", "schedule_factor"]


@dataclass(slots=True)
class GroupOptimizer:
    """The optimizer of one parameter group, over all trained stages that have it."""

    group: str
    optimizer: torch.optim.Optimizer
    parameters: list[nn.Parameter]
    base_lr: list[float]
    stages: list[str]

    def set_factor(self, factor: float) -> None:
        """Multiply every stage's own learning rate."""
        for row, base in zip(self.optimizer.param_groups, self.base_lr, strict=True):
            row["lr"] = base * factor

    def lr(self) -> dict[str, float]:
        """The present learning rate by stage."""
        rows = zip(self.stages, self.optimizer.param_groups, strict=True)
        return {name: row["lr"] for name, row in rows}


def make_optimizers(phase: PhaseSpec, stages: Mapping[str, Stage]) -> list[GroupOptimizer]:
    """One optimizer for each parameter group that the trained stages have."""
    spec = phase.optimizer or OptimizerSpec()
    groups: dict[str, list[tuple[str, list[nn.Parameter]]]] = {}
    for name, stage in stages.items():
        for group, parameters in stage.parameter_groups().items():
            learning = [p for p in parameters if p.requires_grad]
            if learning:
                groups.setdefault(group, []).append((name, learning))
    made = []
    for group, members in groups.items():
        rows: list[dict[str, Any]] = []
        base: list[float] = []
        names: list[str] = []
        flat: list[nn.Parameter] = []
        for name, parameters in members:
            own = phase.stages.get(name)
            lr = spec.lr if own is None or own.lr is None else own.lr
            decay = spec.weight_decay
            if own is not None and own.weight_decay is not None:
                decay = own.weight_decay
            rows.append({"params": parameters, "lr": lr, "weight_decay": decay})
            base.append(lr)
            names.append(name)
            flat += parameters
        cls = torch.optim.AdamW if spec.kind == "adamw" else torch.optim.Adam
        fused = all(p.device.type in ("cpu", "cuda") for p in flat)
        optimizer = cls(
            rows,
            lr=spec.lr,
            betas=(spec.betas[0], spec.betas[1]),
            eps=spec.eps,
            weight_decay=spec.weight_decay,
            fused=fused,
        )
        made.append(GroupOptimizer(group, optimizer, flat, base, names))
    return made


def schedule_factor(spec: ScheduleSpec, step: int, total: int, steps_per_epoch: int) -> float:
    """What the learning rate is multiplied by.

    Args:
        spec: the schedule.
        step: the step within the phase, from 0.
        total: how many steps the phase has.
        steps_per_epoch: how many steps an epoch has.

    Returns:
        A factor in [0, 1]: a linear rise to 1 over the warm-up, then the schedule. The cosine
        (Loshchilov and Hutter 2017) falls to ``final`` over the steps after the warm-up.
    """
    if step < spec.warmup_steps:
        return (step + 1) / (spec.warmup_steps + 1)
    if spec.kind == "step":
        return float(spec.gamma ** (step // steps_per_epoch // spec.step_epochs))
    if spec.kind == "cosine":
        share = (step - spec.warmup_steps) / max(1, total - spec.warmup_steps)
        return spec.final + (1.0 - spec.final) * 0.5 * (1.0 + math.cos(math.pi * share))
    return 1.0
