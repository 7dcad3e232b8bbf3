"""Optimizers and learning-rate schedules of a phase."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate.accelerator import Accelerator
from torch import nn

from cascadezoo.cascade.stage_calls import guard
from cascadezoo.errors import InputError, PluginError, Problem, SpecError
from cascadezoo.spec import OptimizerSpec, PhaseSpec, ScheduleSpec
from cascadezoo.spec.models import GroupTraining, StageTraining, TrainingSpec
from cascadezoo.stages.base import GROUP, GroupOptions, Stage
from cascadezoo.train.sharded_tensors import place_like

__all__ = [
    "GroupOptimizer",
    "apply_gradients",
    "check_groups",
    "check_shardable",
    "make_optimizers",
    "schedule_factor",
]


@dataclass(slots=True)
class GroupOptimizer:
    """The optimizer of one parameter group, over all trained stages that have it.

    Args:
        group: the name of the group.
        optimizer: the optimizer, with one row of parameters per stage.
        parameters: the parameters of all rows.
        base_lr: the learning rate of each row.
        stages: the stage of each row.
        every: each row learns once every so many steps.
    """

    group: str
    optimizer: torch.optim.Optimizer
    parameters: list[nn.Parameter]
    base_lr: list[float]
    stages: list[str]
    every: list[int] = field(default_factory=list)

    def set_factor(self, factor: float) -> None:
        """Multiply every stage's own learning rate."""
        for row, base in zip(self.optimizer.param_groups, self.base_lr, strict=True):
            row["lr"] = base * factor

    def lr(self) -> dict[str, float]:
        """The current learning rates by stage, or by ``stage.group`` if not the default group."""
        rows = zip(self.stages, self.optimizer.param_groups, strict=True)
        tail = "" if self.group == GROUP else f".{self.group}"
        return {f"{name}{tail}": row["lr"] for name, row in rows}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Load the state of the optimizer, with whole tensors for sharded parameters too.

        Raises:
            RuntimeError: shapes differ.
            ValueError: the parameters differ.
        """
        rows = dict(state["state"])
        if len(rows) > len(self.parameters):
            raise ValueError("the optimizer has another number of parameters")
        for index, values in rows.items():
            like = self.parameters[index]
            # Counters of steps have another shape than their parameter.
            rows[index] = {
                key: place_like(value, like) if value.shape == like.shape else value
                for key, value in values.items()
            }
        self.optimizer.load_state_dict({**state, "state": rows})

    def learning(self, step: int) -> Iterator[tuple[str, str, list[nn.Parameter]]]:
        """Stage, group and parameters of the rows that learn in a step of the phase, from 0."""
        every = self.every or [1] * len(self.stages)
        rows = zip(self.stages, every, self.optimizer.param_groups, strict=True)
        for name, each, row in rows:
            if (step + 1) % each == 0:
                yield name, self.group, row["params"]

    def due(self, step: int) -> list[nn.Parameter]:
        """The parameters that learn in a step of the phase, from 0."""
        if max(self.every, default=1) == 1:
            return self.parameters
        rows = zip(self.every, self.optimizer.param_groups, strict=True)
        return [p for every, row in rows if (step + 1) % every == 0 for p in row["params"]]


def make_optimizers(phase: PhaseSpec, stages: Mapping[str, Stage]) -> list[GroupOptimizer]:
    """Make one optimizer for each parameter group of the trained stages.

    The settings of a group of a stage come, in order of precedence, from the phase's
    ``stages.NAME.groups``, its ``stages.NAME``, the stage's
    :meth:`~cascadezoo.Stage.group_options`, and the phase's ``optimizer``. The stage's own factor
    multiplies the learning rate, except one from the first.
    """
    spec = phase.optimizer or OptimizerSpec()
    groups: dict[str, list[tuple[str, list[nn.Parameter]]]] = {}
    for name, stage in stages.items():
        for group, parameters in stage.parameter_groups().items():
            learning = [p for p in parameters if p.requires_grad]
            if learning:
                groups.setdefault(group, []).append((name, learning))
    optimizers = []
    for group, members in groups.items():
        rows: list[dict[str, Any]] = []
        every: list[int] = []
        for name, parameters in members:
            options = stages[name].group_options().get(group, GroupOptions())
            own = phase.stages.get(name, StageTraining())
            row = _settings(spec, own, own.groups.get(group, GroupTraining()), options)
            every.append(row.pop("every"))
            rows.append({"params": parameters, **row})
        flat = [p for _, parameters in members for p in parameters]
        cls = torch.optim.AdamW if spec.kind == "adamw" else torch.optim.Adam
        fused = all(p.device.type in ("cpu", "cuda") for p in flat)
        optimizer = cls(rows, eps=spec.eps, fused=fused)
        base = [row["lr"] for row in rows]
        names = [name for name, _ in members]
        optimizers.append(GroupOptimizer(group, optimizer, flat, base, names, every))
    return optimizers


def _settings(
    spec: OptimizerSpec, stage: StageTraining, group: GroupTraining, options: GroupOptions
) -> dict[str, Any]:
    lr = (spec.lr if stage.lr is None else stage.lr) * options.lr_factor
    betas = spec.betas if options.betas is None else options.betas
    decay = spec.weight_decay if options.weight_decay is None else options.weight_decay
    decay = decay if stage.weight_decay is None else stage.weight_decay
    return {
        "lr": lr if group.lr is None else group.lr,
        "betas": tuple(betas if group.betas is None else group.betas),
        "weight_decay": decay if group.weight_decay is None else group.weight_decay,
        "every": options.every if group.every is None else group.every,
    }


def check_groups(phases: Iterable[PhaseSpec], stages: Mapping[str, Stage]) -> None:
    """Check the parameter groups of stages and phases, before any training starts.

    Raises:
        PluginError: a stage's groups do not contain each of its trainable parameters once, or it
            has options for an unknown group.
        SpecError: a phase names a group that its stage does not have.
    """
    groups = {}
    for name, stage in stages.items():
        with guard(stage, "parameter_groups"):
            groups[name] = stage.parameter_groups()
            _check_whole(name, stage, groups[name])
    problems = list(_unknown_groups(phases, groups))
    if problems:
        raise SpecError(problems)


def check_shardable(
    training: TrainingSpec, stages: Mapping[str, Stage], scaler: object | None
) -> None:
    """Check that a training can divide the weights of its stages among processes.

    Raises:
        InputError: it scales losses (fp16), or trains a stage with several parameter groups or
            with one that skips steps.
    """
    if scaler is not None:
        raise InputError(
            "training.parallel is 'fsdp', which does not work with fp16",
            hint="use --precision bf16 or fp32, or set training.parallel to ddp",
            code="input-fsdp-fp16",
        )
    trained = {name for phase in training.phases or [] for name in phase.train}
    for name, stage in stages.items():
        groups = [group for group, members in stage.parameter_groups().items() if members]
        paced = any(options.every > 1 for options in stage.group_options().values())
        if name in trained and (len(groups) > 1 or paced):
            raise InputError(
                f"training.parallel is 'fsdp', which trains one parameter group, but stage "
                f"{name!r} ({type(stage).__name__}) has {', '.join(map(repr, groups))}",
                hint="set training.parallel to ddp",
                code="input-fsdp-groups",
                name=name,
                groups=tuple(groups),
            )


def _unknown_groups(
    phases: Iterable[PhaseSpec], groups: Mapping[str, Mapping[str, object]]
) -> Iterator[Problem]:
    for index, phase in enumerate(phases):
        for name, own in phase.stages.items():
            for group in own.groups:
                if group not in groups[name]:
                    listed = ", ".join(repr(g) for g in groups[name])
                    yield Problem(
                        f"training.phases.{index}.stages.{name}.groups.{group}",
                        f"{name!r} has no parameter group {group!r}",
                        f"use one of {listed}",
                        code="no-group",
                    )


def _check_whole(name: str, stage: Stage, groups: Mapping[str, list[nn.Parameter]]) -> None:
    kind = type(stage).__name__
    unknown = set(stage.group_options()) - set(groups)
    if unknown:
        raise PluginError(
            f"stage {name!r} ({kind}) has options for unknown groups: {', '.join(sorted(unknown))}",
            hint="use only the groups of parameter_groups() in group_options()",
            code="plugin-groups-unknown",
            name=name,
            kind=kind,
        )
    counts = Counter(id(p) for parameters in groups.values() for p in parameters)
    for key, parameter in stage.named_parameters():
        if parameter.requires_grad and counts[id(parameter)] != 1:
            count = "no group" if not counts[id(parameter)] else "more than one group"
            raise PluginError(
                f"stage {name!r} ({kind}): the parameter {key} is in {count}",
                hint="return each parameter once in parameter_groups(); freeze a parameter that "
                "must not learn with requires_grad_(False)",
                code="plugin-groups-parameter",
                parameter=key,
                name=name,
                kind=kind,
            )


def apply_gradients(
    accelerator: Accelerator, groups: Iterable[GroupOptimizer], clip_norm: float | None
) -> None:
    """Clip and apply the gradients of each group, and clear them.

    The fp16 scaler unscales once for each group and updates its scale once for all. Accelerate's
    own optimizers are not used: they support a single one, and would unscale the second one twice.

    Args:
        accelerator: its scaler is used if it has one.
        groups: the groups; those without gradients are skipped.
        clip_norm: maximum norm of a group's gradients; None does not clip.
    """
    scaler = accelerator.scaler
    ready = [g for g in groups if any(p.grad is not None for p in g.parameters)]
    for group in ready:
        if clip_norm is not None:
            if scaler is not None:
                scaler.unscale_(group.optimizer)
            nn.utils.clip_grad_norm_(group.parameters, clip_norm)
    for group in ready:
        if scaler is not None:
            scaler.step(group.optimizer)
        else:
            group.optimizer.step()
        group.optimizer.zero_grad(set_to_none=True)
    if scaler is not None and ready:
        scaler.update()


def schedule_factor(spec: ScheduleSpec, step: int, total: int, steps_per_epoch: int) -> float:
    """The factor of the learning rate.

    Args:
        spec: the schedule.
        step: the step within the phase, from 0.
        total: number of steps of the phase.
        steps_per_epoch: number of steps of an epoch.

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
