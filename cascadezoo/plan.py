"""What a build will be, found on the meta device: sizes, parameters, FLOPs, memory, advice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from cascadezoo.cascade import Cascade
from cascadezoo.draws import Draw
from cascadezoo.errors import ResourceError
from cascadezoo.spec import ResolvedSpec, ResolvedStage
from cascadezoo.stages.base import Stage, TrainContext

__all__ = ["Plan", "StagePlan", "available_memory", "check_memory", "make_plan"]

FLOAT = 4
# Weights, gradients and the two moments of Adam; the average comes on top where there is one.
COPIES = 4


@dataclass(frozen=True, slots=True)
class StagePlan:
    """One stage of a plan.

    Args:
        name: the stage's name.
        kind: its kind.
        role: its role.
        input: what it receives, e.g. ``3x16x16``; None for a generator.
        output: what it makes.
        parameters: how many there are.
        flops_forward: floating-point operations of one forward pass on one image (a
            multiplication and an addition are two); None where it cannot be traced.
        evaluations: forward passes to sample one image.
        flops_sample: FLOPs to sample one image.
        activation_bytes: what a training step keeps for the backward pass, for one image.
    """

    name: str
    kind: str
    role: str
    input: str | None
    output: str
    parameters: int
    flops_forward: int | None
    evaluations: int
    flops_sample: int | None
    activation_bytes: int | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a build will be."""

    name: str
    stages: list[StagePlan]
    parameters: int
    weights_bytes: int
    training_bytes: int
    """Weights, gradients, optimizer, average and activations of the largest phase; an estimate."""
    available_bytes: int | None
    phases: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The plan as ``--json`` prints it."""
        return asdict(self)


def make_plan(resolved: ResolvedSpec, device: torch.device | str = "auto") -> Plan:
    """Build the cascade on the meta device and look at it.

    Args:
        resolved: the spec.
        device: whose memory the build is held against; ``auto`` is where it would run.

    Raises:
        ResourceError: a stage is larger than any memory can be.
    """
    with torch.random.fork_rng(devices=[]):
        cascade = Cascade.from_spec(resolved, device="meta")
    rows = [
        _plan_stage(stage, cascade.stage(stage.name), resolved.num_classes)
        for stage in resolved.stages
    ]
    spec = resolved.spec
    weights = sum(t.numel() * t.element_size() for t in cascade.state_dict().values())
    phases: list[dict[str, Any]] = [
        {
            "name": phase.name,
            "train": list(phase.train),
            "epochs": phase.epochs,
            "steps": phase.steps,
            "bytes": _phase_bytes(rows, weights, phase.train, resolved),
        }
        for phase in spec.training.phases or []
    ]
    return Plan(
        name=spec.name,
        stages=rows,
        parameters=sum(row.parameters for row in rows),
        weights_bytes=weights,
        training_bytes=max((p["bytes"] for p in phases), default=weights),
        available_bytes=available_memory(device),
        phases=phases,
        warnings=[*_warnings(resolved), *_untraced(rows)],
    )


def check_memory(plan: Plan) -> None:
    """Refuse a plan whose weights and optimizer alone are more than there is.

    Raises:
        ResourceError: with what it would need, stage by stage.
    """
    need = plan.weights_bytes * (COPIES + 1)
    if plan.available_bytes is None or need <= plan.available_bytes:
        return
    largest = max(plan.stages, key=lambda row: row.parameters)
    raise ResourceError(
        f"{plan.name} has {plan.parameters:,} parameters and needs about {_gib(need)} to train "
        f"(weights, gradients, optimizer, average); there are {_gib(plan.available_bytes)}",
        hint=f"stage {largest.name!r} ({largest.kind}) has {largest.parameters:,} of them; "
        "make its config smaller",
    )


def available_memory(device: torch.device | str = "auto") -> int | None:
    """The device's whole memory in bytes; of the host what a process may get. None if unknown."""
    name = str(device)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda"):
        return torch.cuda.get_device_properties(torch.device(name)).total_memory
    if not hasattr(os, "sysconf"):
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _plan_stage(place: ResolvedStage, stage: Stage, num_classes: int | None) -> StagePlan:
    stage = stage.to("meta")
    evaluations = stage.network_evaluations()
    forward, kept = _trace(place, stage, num_classes)
    return StagePlan(
        name=place.name,
        kind=place.kind,
        role=place.entry.role,
        input=None if place.input is None else str(place.input),
        output=str(place.output),
        parameters=sum(p.numel() for p in stage.parameters()),
        flops_forward=forward,
        evaluations=evaluations,
        flops_sample=None if forward is None else forward * evaluations,
        activation_bytes=kept,
    )


def _trace(
    place: ResolvedStage, stage: Stage, num_classes: int | None
) -> tuple[int | None, int | None]:
    """FLOPs of a forward pass and bytes kept for the backward pass, for one image."""

    def image(shape: Any) -> Tensor:
        return torch.empty(1, shape.channels, shape.size, shape.size, device="meta")

    upstream = None if place.input is None else image(place.input)
    labels = None
    if num_classes is not None:
        labels = torch.zeros(1, dtype=torch.int64, device="meta")
    context = TrainContext(Draw(0, device="meta"), labels)
    kept: dict[int, int] = {}
    own = {t.untyped_storage()._cdata for t in (*stage.parameters(), *stage.buffers())}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    counter = FlopCounterMode(display=False)
    try:
        with counter, torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            stage(stage.preprocess(image(place.output), upstream, context))
    except (RuntimeError, NotImplementedError):
        # A plugin's stage may do what meta tensors cannot; its FLOPs are then not known.
        return None, None
    return counter.get_total_flops(), sum(kept.values())


def _phase_bytes(
    rows: list[StagePlan], weights: int, train: list[str], resolved: ResolvedSpec
) -> int:
    copies = COPIES if resolved.spec.training.ema else COPIES - 1
    learning = sum(row.parameters for row in rows if row.name in train) * FLOAT
    kept = sum(row.activation_bytes or 0 for row in rows if row.name in train)
    return weights + learning * copies + kept * resolved.spec.training.batch_size


def _warnings(resolved: ResolvedSpec) -> Iterator[str]:
    for stage in resolved.stages:
        for text in stage.config.advice(stage.output, resolved.num_classes):
            yield f"{stage.name} ({stage.kind}): {text}"
    training = resolved.spec.training
    outputs = {stage.name: stage.output for stage in resolved.stages}
    for phase in (training.phases or [])[-1:]:
        if phase.teacher_forcing.end > 0.0 and len(resolved.stages) > 1:
            yield (
                f"phase {phase.name}: teacher forcing ends at {phase.teacher_forcing.end:g}, so "
                "the last training still differs from sampling, where no stage gets the truth"
            )
    learned = {name for phase in training.phases or [] for name in phase.train}
    for name in outputs:
        if name not in learned:
            yield f"{name}: no phase trains this stage"
    for loss in training.losses or []:
        size = outputs[loss.stage].size
        if loss.kind == "lpips" and loss.weight > 0 and size < 32:
            yield (
                f"{loss.stage}: LPIPS on {size}x{size} images is far below the 64x64 patches that "
                "it was calibrated on"
            )


def _untraced(rows: list[StagePlan]) -> Iterator[str]:
    for row in rows:
        if row.flops_forward is None:
            yield (
                f"{row.name} ({row.kind}): does what cannot be traced on the meta device, so its "
                "FLOPs are not known and its activations are not in the memory"
            )


def _gib(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB"
