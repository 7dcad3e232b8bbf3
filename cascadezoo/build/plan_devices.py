"""Which settings let a training fit on several devices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from cascadezoo.build.plan import FLOAT, Plan, activations_with
from cascadezoo.cascade.stage_costs import meta_cascade
from cascadezoo.errors import DataError, ResourceError
from cascadezoo.nn.recompute import recomputed_blocks
from cascadezoo.spec import PhaseSpec, ResolvedSpec
from cascadezoo.train.ema import ema_decay

__all__ = ["DevicePlan", "plan_devices"]

RESERVE = 0.1
"""The share of a device's memory that is left for its context and temporary buffers."""
FEW = 4
"""Parts of fewer images use a device badly, so other settings are tried first."""

Parallel = Literal["ddp", "fsdp"]


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """Settings with which a training fits on several devices, and what it needs there.

    Args:
        devices: number of devices, each with a process of its own.
        memory_bytes: memory of each.
        parallel: ``training.parallel``.
        accumulate: ``training.accumulate``.
        recompute: ``training.recompute``.
        images: images of a part, the most that a device computes at once, in the largest phase.
        state_bytes: weights, gradients, optimizer and average of the largest phase on each device.
        activation_bytes: activations of the largest phase on each device.
        phase: the phase that needs the most memory.
        settings: what to change in the spec, as ``path=value``; empty if it fits as it is.
    """

    devices: int
    memory_bytes: int
    parallel: Parallel
    accumulate: int
    recompute: bool
    images: int
    state_bytes: int
    activation_bytes: int
    phase: str
    settings: list[str]
    whole_bytes: int = 0
    """State of each device while ``fsdp`` gathers all weights, for figures and samples."""

    @property
    def bytes(self) -> int:
        """The memory of each device that the training needs; an estimate for fp32."""
        return max(self.state_bytes + self.activation_bytes, self.whole_bytes)


def plan_devices(resolved: ResolvedSpec, plan: Plan, devices: int, memory_bytes: int) -> DevicePlan:
    """The cheapest settings with which all phases of a training fit on some devices.

    The settings of the spec are kept if they fit. Otherwise smaller parts of the batch are tried,
    then weights divided among the devices, then recomputed activations, which cost time.

    Args:
        resolved: the spec.
        plan: its plan.
        devices: number of devices.
        memory_bytes: memory of each device.

    Raises:
        DataError: the devices cannot share the batch of a phase evenly.
        ResourceError: no settings fit.
    """
    phases = resolved.spec.training.phases or []
    training = resolved.spec.training
    for phase in phases:
        batch_size = phase.batch_size or training.batch_size
        if batch_size % devices:
            raise DataError(
                f"{devices} devices cannot split a batch of {batch_size} images evenly",
                hint=f"set training.batch_size to a multiple of {devices}",
                code="data-batch-uneven",
                batch_size=batch_size,
                world=devices,
            )
    costs = _Costs(resolved, plan)
    smallest: DevicePlan | None = None
    for parallel, recompute, accumulate in _candidates(resolved, devices):
        made = _largest(resolved, costs, devices, memory_bytes, parallel, recompute, accumulate)
        if made.bytes <= (1 - RESERVE) * memory_bytes:
            return made
        if smallest is None or made.bytes < smallest.bytes:
            smallest = made
    if smallest is None:
        raise ValueError(f"{resolved.spec.name} has no phases")
    raise ResourceError(
        f"{plan.name} does not fit on {devices} devices of {memory_bytes / 2**30:,.1f} GiB: phase "
        f"{smallest.phase!r} needs at least {smallest.bytes / 2**30:,.1f} GiB on each, with "
        f"{' '.join(smallest.settings) or 'the settings of the spec'}; a tenth of the memory is "
        "kept free",
        hint="use more devices or devices with more memory, or make the stages smaller",
        code="resources-devices",
        name=plan.name,
        needed=smallest.bytes,
        available=memory_bytes,
        devices=devices,
    )


def _candidates(resolved: ResolvedSpec, devices: int) -> Iterator[tuple[Parallel, bool, int]]:
    """Settings, the cheapest first."""
    training = resolved.spec.training
    own: Parallel = "fsdp" if training.parallel == "fsdp" else "ddp"
    yield own, training.recompute, training.accumulate
    local = [(p.batch_size or training.batch_size) // devices for p in training.phases or []]
    most = min(local, default=1)
    parts = [n for n in range(1, most + 1) if all(count % n == 0 for count in local)]
    kinds: list[Parallel] = ["ddp"] if devices == 1 or own == "fsdp" else ["ddp", "fsdp"]
    if own == "fsdp" and devices > 1:
        kinds = ["fsdp"]
    recomputes = [True] if training.recompute else [False, True]
    for few in (False, True):
        for recompute in recomputes:
            for parallel in kinds:
                for n in parts:
                    if (max(local) // n < FEW) == few:
                        yield parallel, recompute, n


class _Costs:
    """Sizes of the stages, with and without recomputed activations."""

    def __init__(self, resolved: ResolvedSpec, plan: Plan) -> None:
        self.resolved = resolved
        self.weights = plan.weights_bytes
        self.rows = {row.name: row for row in plan.stages}
        own = {row.name: row.activation_bytes or 0 for row in plan.stages}
        self._activations = {resolved.spec.training.recompute: own}
        cascade = meta_cascade(resolved)
        blocks: list[int] = []
        self.outside = 0
        for _, stage in cascade.named_stages():
            sizes = [
                sum(p.numel() for p in block.parameters()) * FLOAT
                for block in recomputed_blocks(stage)
            ]
            blocks += sizes
            self.outside += sum(p.numel() for p in stage.parameters()) * FLOAT - sum(sizes)
        self.block = max(blocks, default=0)

    def activations(self, recompute: bool) -> dict[str, int]:
        """Bytes of activations for one image by stage."""
        if recompute not in self._activations:
            self._activations[recompute] = activations_with(self.resolved, recompute=recompute)
        return self._activations[recompute]

    def state(self, phase: PhaseSpec, parallel: Parallel, devices: int) -> tuple[int, int]:
        """Bytes of weights, gradients, optimizer and average on each device.

        Returns:
            Those during a step, and those while all weights are gathered between steps.
        """
        training = self.resolved.spec.training
        trained = 0
        for name in phase.train:
            # Gradients, two moments, and the average.
            copies = 3 if ema_decay(training.ema, phase, name) is None else 4
            trained += self.rows[name].parameters * FLOAT * copies
        if parallel == "ddp" or devices == 1:
            return self.weights + trained, 0
        # Each device also gathers what is outside of blocks, with gradients, and the blocks that
        # run and that come next.
        gathered = 2 * self.outside + 3 * self.block
        divided = (self.weights + trained) // devices
        return divided + gathered, divided + self.weights


def _largest(
    resolved: ResolvedSpec,
    costs: _Costs,
    devices: int,
    memory_bytes: int,
    parallel: Parallel,
    recompute: bool,
    accumulate: int,
) -> DevicePlan:
    training = resolved.spec.training
    one = costs.activations(recompute)
    changes = []
    if parallel != training.parallel and not (parallel == "ddp" and training.parallel == "auto"):
        changes.append(f"training.parallel={parallel}")
    if accumulate != training.accumulate:
        changes.append(f"training.accumulate={accumulate}")
    if recompute != training.recompute:
        changes.append(f"training.recompute={str(recompute).lower()}")
    # Neither works with a compilation that the spec requires.
    if training.compile not in (False, "auto") and changes and (recompute or parallel == "fsdp"):
        changes.append("training.compile=auto")
    made = []
    for phase in training.phases or []:
        images = (phase.batch_size or training.batch_size) // devices
        images = -(-images // accumulate)
        state, whole = costs.state(phase, parallel, devices)
        made.append(
            DevicePlan(
                devices=devices,
                memory_bytes=memory_bytes,
                parallel=parallel,
                accumulate=accumulate,
                recompute=recompute,
                images=images,
                state_bytes=state,
                activation_bytes=images * sum(one[name] for name in phase.train),
                phase=phase.name,
                settings=changes,
                whole_bytes=whole,
            )
        )
    return max(made, key=lambda row: row.bytes)
