"""The plan of a build, computed on the meta device: sizes, parameters, FLOPs, memory, advice."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from cascadezoo.cascade.stage_costs import StagePlan, meta_cascade, plan_stages
from cascadezoo.cascade.weights import bounded_build
from cascadezoo.data.memory import largest_data
from cascadezoo.data.stream_loader import AHEAD, decoding_workers
from cascadezoo.errors import ModelError, ResourceError
from cascadezoo.plugins.manager import get_registry
from cascadezoo.spec import PhaseSpec, ResolvedSpec, load_spec
from cascadezoo.spec.advice import spec_warnings
from cascadezoo.train.ema import ema_decay
from cascadezoo.train.optim import check_groups

__all__ = [
    "Plan",
    "activations_with",
    "available_memory",
    "check_activations",
    "check_memory",
    "make_plan",
]

FLOAT = 4
# Weights, gradients and the two moments of Adam; an average of the weights is one more.
COPIES = 4
# The estimate of activations is for float32. bf16 halves them, and compilation keeps fewer.
SURE_ACTIVATIONS = 0.4
MOST_PARTS = 30_000
"""Modules and tensors of a cascade to plan; the largest known cascades have thousands."""


@dataclass(frozen=True, slots=True)
class DataPlan:
    """The training images.

    Args:
        images: their number.
        decoded_bytes: their size in memory, in the form of the cascade.
        limit_bytes: the limit of data in memory.
        streamed: whether they stay encoded.
        ahead_bytes: the size of the batches that are decoded in advance; None for resident data.
    """

    images: int
    decoded_bytes: int
    limit_bytes: int
    streamed: bool
    ahead_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of a build."""

    name: str
    stages: list[StagePlan]
    parameters: int
    weights_bytes: int
    training_bytes: int
    """Weights, gradients, optimizer, average and activations of the largest phase; an estimate."""
    available_bytes: int | None
    phases: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    data: DataPlan | None = None
    """None if the number of training images is unknown before they are read."""
    recomputed_bytes: dict[str, int] | None = None
    """Activations of one image by stage with ``training.recompute``; None if the training fits as
    it is, or cannot be changed to it."""

    def to_dict(self) -> dict[str, Any]:
        """The plan as ``--json`` prints it."""
        return asdict(self)

    @property
    def sampling_flops(self) -> int | None:
        """FLOPs to sample one image with all stages; None if a stage cannot be traced."""
        total = 0
        for row in self.stages:
            if row.flops_sample is None:
                return None
            total += row.flops_sample
        return total

    @property
    def total_flops(self) -> float | None:
        """:meth:`training_flops` of phases with steps.

        None without phases, or if a phase has epochs, whose FLOPs depend on the data, or if a
        trained stage cannot be traced.
        """
        if not self.phases or any(phase["steps"] is None for phase in self.phases):
            return None
        return self._flops_of(phase["steps"] * phase["images"] for phase in self.phases)

    def training_flops(self, batch_size: int, steps_per_epoch: int) -> float | None:
        """FLOPs of the whole training: forward and backward passes of each trained stage and image.

        Frozen stages are left out, so this is a lower bound.

        Args:
            batch_size: images per step, of phases without their own batch size.
            steps_per_epoch: steps per epoch of that batch size, for phases whose length is in
                epochs.

        Returns:
            None if a trained stage cannot be traced.
        """
        return self._flops_of(
            phase["epochs"] * steps_per_epoch * batch_size
            if phase["steps"] is None
            else phase["steps"] * (phase["batch_size"] or batch_size)
            for phase in self.phases
        )

    def with_steps(self, steps: Sequence[int]) -> Plan:
        """The plan of a training whose phases have these steps.

        Args:
            steps: one for each phase.
        """
        rows = zip(self.phases, steps, strict=True)
        return replace(self, phases=[{**p, "steps": n, "epochs": None} for p, n in rows])

    def _flops_of(self, images: Iterable[int]) -> float | None:
        """FLOPs of phases with these numbers of images."""
        passes = {row.name: (row.flops_forward, row.flops_backward) for row in self.stages}
        total = 0.0
        for phase, count in zip(self.phases, images, strict=True):
            for name in phase["train"]:
                forward, backward = passes[name]
                if forward is None or backward is None:
                    return None
                total += float(forward + backward) * count
        return total


def make_plan(resolved: ResolvedSpec, device: torch.device | str = "auto") -> Plan:
    """Build the cascade on the meta device and compute its plan.

    Args:
        resolved: the spec.
        device: the device whose memory is reported; ``auto`` is the default device.

    Raises:
        ResourceError: a stage is larger than any memory, or has too many layers.
        PluginError: the parameter groups of a stage are inconsistent.
        SpecError: a phase names a parameter group that its stage does not have.
    """
    try:
        with bounded_build(resolved.spec.name, MOST_PARTS):
            cascade = meta_cascade(resolved)
    except ModelError as error:
        if error.code != "model-too-many-tensors":
            raise
        raise ResourceError(
            f"{resolved.spec.name} has more than {MOST_PARTS:,} layers and tensors",
            hint="use fewer blocks, levels or stages",
            code="resources-layers",
            name=resolved.spec.name,
            limit=MOST_PARTS,
        ) from error
    rows = list(plan_stages(resolved, cascade))
    spec = resolved.spec
    check_groups(spec.training.phases or [], dict(cascade.named_stages()))
    weights = sum(t.numel() * t.element_size() for t in cascade.state_dict().values())
    on_host = _device_name(device) == "cpu"
    phases: list[dict[str, Any]] = [
        {
            "name": phase.name,
            "train": list(phase.train),
            "epochs": phase.epochs,
            "steps": phase.steps,
            "bytes": _phase_bytes(rows, weights, phase, resolved)
            + (_pair_bytes(phase, resolved) if on_host else 0),
            "pairs_bytes": _pair_bytes(phase, resolved),
            "batch_size": phase.batch_size,
            "images": phase.batch_size or spec.training.batch_size,
            "accumulate": spec.training.accumulate,
        }
        for phase in spec.training.phases or []
    ]
    need = max((p["bytes"] for p in phases), default=weights)
    available = available_memory(device)
    short = available is not None and need > available and bool(phases)
    # Compiled networks cannot be recomputed.
    can = not spec.training.recompute and spec.training.compile in (False, "auto")
    made = Plan(
        name=spec.name,
        stages=rows,
        parameters=sum(row.parameters for row in rows),
        weights_bytes=weights,
        training_bytes=need,
        available_bytes=available,
        phases=phases,
        warnings=[*spec_warnings(resolved), *_untraced(rows)],
        data=_data_plan(resolved),
        recomputed_bytes=activations_with(resolved, recompute=True) if short and can else None,
    )
    made.warnings.extend(_memory_warning(made))
    return made


def _data_plan(resolved: ResolvedSpec) -> DataPlan | None:
    """How the training images will be read, as far as it is known before they are read."""
    count = resolved.data_info.train
    if count is None:
        return None
    data, image = resolved.spec.data, resolved.image
    one = image.channels * image.size**2
    limit = largest_data()
    can = get_registry().datasets.get(data.source).entry.source is not None
    wanted = data.streaming is True or (
        data.streaming == "auto" and (count * one > limit or data.stream.max_bad > 0)
    )
    if not (can and wanted):
        return DataPlan(count, count * one, limit, streamed=False)
    ahead = AHEAD * max(1, decoding_workers(data.stream.workers))
    ahead_bytes = ahead * resolved.spec.training.batch_size * one
    return DataPlan(count, count * one, limit, streamed=True, ahead_bytes=ahead_bytes)


def _memory_warning(plan: Plan) -> Iterator[str]:
    if plan.available_bytes is not None and plan.training_bytes > plan.available_bytes:
        what = "training needs" if plan.phases else "the weights need"
        yield (
            f"{what} about {_gib(plan.training_bytes)}, but "
            f"{_gib(plan.available_bytes)} are available; {_what_fits(plan, plan.available_bytes)}"
        )


def activations_with(resolved: ResolvedSpec, *, recompute: bool) -> dict[str, int]:
    """Bytes of activations for one image by stage, with another ``training.recompute``."""
    data = resolved.spec.to_dict()
    data["training"] |= {"recompute": recompute, "compile": "auto"}
    other = load_spec(data)
    return _activations(plan_stages(other, meta_cascade(other)))


def _activations(rows: Iterable[StagePlan]) -> dict[str, int]:
    return {row.name: row.activation_bytes or 0 for row in rows}


@dataclass(frozen=True, slots=True)
class _Devices:
    """The processes of a training with a memory of their own.

    Args:
        processes: their number; they share each batch.
        divided: whether they also share weights, gradients, optimizer and average.
    """

    processes: int = 1
    divided: bool = False

    def state(self, plan: Plan, size: int) -> int:
        """The least part of the state of a training on each of them."""
        # The cascade is assembled, measured and saved as a whole.
        return max(size // self.processes, plan.weights_bytes) if self.divided else size


_ALONE = _Devices()


def _what_fits(plan: Plan, available: int, devices: _Devices = _ALONE) -> str:
    """The settings with which all phases fit."""
    if not plan.phases:
        return "make the stages smaller"
    now = plan.phases[0]["accumulate"]
    plain = _parts_that_fit(plan, available, devices, _activations(plan.stages), now + 1)
    found = [] if plain is None else [f"training.accumulate={plain}"]
    if plan.recomputed_bytes is not None:
        parts = _parts_that_fit(plan, available, devices, plan.recomputed_bytes, now)
        if parts is not None and (plain is None or parts < plain):
            changed = f"training.accumulate={parts} and " if parts > now else ""
            found.append(f"{changed}training.recompute=true")
    if not found:
        return "lower data.size, or make the stages smaller"
    return f"set {', or '.join(found)}"


def _parts_that_fit(
    plan: Plan, available: int, devices: _Devices, activations: Mapping[str, int], least: int
) -> int | None:
    """The smallest ``training.accumulate`` from ``least`` on with which all phases fit."""
    rows = []
    own = _activations(plan.stages)
    for phase in plan.phases:
        whole = sum(own[name] for name in phase["train"])
        state = phase["bytes"] - whole * (phase["images"] // phase["accumulate"])
        one = sum(activations[name] for name in phase["train"])
        rows.append((phase["images"], devices.state(plan, state), one))
    world = devices.processes
    for parts in range(least, min(images for images, _, _ in rows) // world + 1):
        if any(images % (world * parts) for images, _, _ in rows):
            continue
        if all(
            state + one * (images // world // parts) <= available for images, state, one in rows
        ):
            return parts
    return None


def check_activations(plan: Plan, *, processes: int = 1, divided: bool = False) -> None:
    """Reject a plan whose training cannot fit into memory even with half of the activations.

    Args:
        plan: the plan.
        processes: number of processes with a memory of their own that share each batch.
        divided: whether they also share weights, gradients, optimizer and average.

    Raises:
        ResourceError: weights, optimizer and 0.4 of the estimated activations of a phase exceed the
            memory.
    """
    if plan.available_bytes is None:
        return
    devices = _Devices(processes, divided)
    activations = _activations(plan.stages)
    for phase in plan.phases:
        one = sum(activations[name] for name in phase["train"])
        whole = one * (phase["images"] // phase["accumulate"])
        state = devices.state(plan, phase["bytes"] - whole)
        need = state + int(SURE_ACTIVATIONS * whole / processes)
        if need <= plan.available_bytes:
            continue
        largest = max(phase["train"], key=lambda name: activations[name])
        shape = next(row.output for row in plan.stages if row.name == largest)
        raise ResourceError(
            f"{plan.name} needs at least {_gib(need)} to train phase {phase['name']}, but "
            f"{_gib(plan.available_bytes)} are available; most of it are activations of stage "
            f"{largest!r} ({shape}): {_gib(activations[largest])} for each image of a batch",
            hint=f"{_what_fits(plan, plan.available_bytes, devices)}; or lower training.batch_size "
            f"(now {phase['images']})",
            code="resources-activations",
            name=plan.name,
            stage=largest,
            needed=need,
            available=plan.available_bytes,
        )


def check_memory(plan: Plan, *, processes: int = 1, divided: bool = False) -> None:
    """Reject a plan whose weights and optimizer alone exceed the memory.

    Args:
        plan: the plan.
        processes: number of processes with a memory of their own.
        divided: whether they share weights, gradients, optimizer and average.

    Raises:
        ResourceError: the required memory exceeds the available memory.
    """
    whole = plan.weights_bytes * (COPIES + 1)
    need = _Devices(processes, divided).state(plan, whole)
    if plan.available_bytes is None or need <= plan.available_bytes:
        return
    shared = _Devices(processes, divided=True).state(plan, whole)
    other = ""
    if shared <= plan.available_bytes:
        other = "set training.parallel=fsdp, which divides them among the processes; or "
    largest = max(plan.stages, key=lambda row: row.parameters)
    raise ResourceError(
        f"{plan.name} has {plan.parameters:,} parameters and needs about {_gib(need)} to train "
        f"(weights, gradients, optimizer, average), but {_gib(plan.available_bytes)} are available",
        hint=f"{other}make stage {largest.name!r} ({largest.kind}) smaller: it has "
        f"{largest.parameters:,} parameters",
        code="resources-training",
        name=plan.name,
        needed=need,
        available=plan.available_bytes,
    )


def available_memory(device: torch.device | str = "auto") -> int | None:
    """Total memory of the device, or of the host for a CPU, in bytes. None if unknown."""
    name = _device_name(device)
    if name.startswith("cuda"):
        return torch.cuda.get_device_properties(torch.device(name)).total_memory
    if not hasattr(os, "sysconf"):
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _device_name(device: torch.device | str) -> str:
    if str(device) == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return str(device)


def _phase_bytes(
    rows: list[StagePlan], weights: int, phase: PhaseSpec, resolved: ResolvedSpec
) -> int:
    training = resolved.spec.training
    trained = activations = 0
    for row in rows:
        if row.name in phase.train:
            averaged = ema_decay(training.ema, phase, row.name) is not None
            trained += row.parameters * FLOAT * (COPIES if averaged else COPIES - 1)
            activations += row.activation_bytes or 0
    batch_size = phase.batch_size or training.batch_size
    return weights + trained + activations * (batch_size // training.accumulate)


def _pair_bytes(phase: PhaseSpec, resolved: ResolvedSpec) -> int:
    """Host memory of the pairs of noise and image of a reflow phase."""
    shape = resolved.stages[0].output
    pairs = 0 if phase.reflow is None else phase.reflow.pairs
    return 2 * pairs * shape.channels * shape.size**2 * FLOAT


def _untraced(rows: list[StagePlan]) -> Iterator[str]:
    for row in rows:
        if row.flops_forward is None:
            yield (
                f"{row.name} ({row.kind}): cannot be traced on the meta device, or only with too "
                "many operations, so its FLOPs are unknown and the memory does not include its "
                "activations"
            )


def _gib(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB"
