"""The cost of each stage: parameters, FLOPs and memory, computed on the meta device."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.cascade.stage_calls import guard
from cascadezoo.model_folder.metrics_file import StageRow
from cascadezoo.nn.recompute import recomputed_blocks
from cascadezoo.spec import ResolvedSpec, ResolvedStage
from cascadezoo.spec.configs import ImageShape
from cascadezoo.stages.base import SampleRequest, Stage, TrainContext
from cascadezoo.util.rng import Draw, ImageDraw

__all__ = ["StagePlan", "meta_cascade", "plan_stages", "stage_rows"]

MOST_OPERATIONS = 10_000
"""Operations that the stages of one cascade may take to trace; the largest known take hundreds."""


@dataclass(frozen=True, slots=True)
class StagePlan:
    """The cost of one stage.

    Args:
        name: the stage's name.
        kind: its kind.
        role: its role.
        input: the shape of its input, e.g. ``3x16x16``; None for a generator.
        output: the shape of its output.
        parameters: number of parameters.
        flops_forward: floating-point operations of one forward pass in training on one image (a
            multiplication and an addition are two); None if it cannot be traced. With the passes
            that only compute a target.
        flops_backward: FLOPs of its backward pass, twice those of the operations that have
            gradients.
        evaluations: number of forward passes to sample one image.
        flops_sample: FLOPs to sample one image, without the parts that only training uses.
        activation_bytes: memory that a training step keeps for the backward pass of one image.
    """

    name: str
    kind: str
    role: str
    input: str | None
    output: str
    parameters: int
    flops_forward: int | None
    flops_backward: int | None
    evaluations: int
    flops_sample: int | None
    activation_bytes: int | None


def meta_cascade(resolved: ResolvedSpec) -> Cascade:
    """Build a cascade on the meta device, without memory; the global RNG state is unchanged.

    Raises:
        ResourceError: a stage is larger than any possible memory.
    """
    with torch.random.fork_rng(devices=[]):
        return Cascade.from_spec(resolved, device="meta")


def plan_stages(resolved: ResolvedSpec, cascade: Cascade) -> Iterator[StagePlan]:
    """The cost of each stage of a cascade, from the generator on.

    A network of repeated parts (:attr:`StageConfig.repeated`) is traced with a few of them, and the
    cost of the others is added. After 10,000 operations the other stages are not traced, and a
    stage's sampling takes at most half of those that are left.

    Args:
        resolved: the spec of the cascade.
        cascade: its cascade on the meta device; see :func:`meta_cascade`.
    """
    budget = _Budget(MOST_OPERATIONS, recompute=resolved.spec.training.recompute)
    for place in resolved.stages:
        yield _plan_stage(place, cascade.stage(place.name), resolved.num_classes, budget)


class _Budget:
    """The number of operations that may still be traced, and whether blocks are recomputed."""

    def __init__(self, left: int, *, recompute: bool = False) -> None:
        self.left = left
        self.recompute = recompute

    def spend(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("too many operations")


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the FLOPs of all operations, and of those with gradients, by PyTorch's formulas."""

    def __init__(self, budget: _Budget) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.budget = budget
        self.flops = 0
        self.graded = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operation and count it."""
        self.budget.spend()
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            flops = formula(*args, **kwargs, out_val=out)
            self.flops += flops
            self.graded += flops if torch.is_grad_enabled() else 0
        return out


@dataclass(frozen=True, slots=True)
class _Cost:
    """FLOPs and memory for one image; None if they cannot be traced."""

    forward: int | None
    graded: int | None
    kept: int | None
    sample: int | None


def _plan_stage(
    place: ResolvedStage, stage: Stage, num_classes: int | None, budget: _Budget
) -> StagePlan:
    stage = stage.to("meta")
    with guard(stage, "network_evaluations"):
        evaluations = stage.network_evaluations()
    cost = _cost(place, stage, num_classes, budget)
    return StagePlan(
        name=place.name,
        kind=place.kind,
        role=place.entry.role,
        input=None if place.input is None else str(place.input),
        output=str(place.output),
        parameters=sum(p.numel() for p in stage.parameters()),
        flops_forward=cost.forward,
        flops_backward=None if cost.graded is None else 2 * cost.graded,
        evaluations=evaluations,
        flops_sample=None if cost.sample is None else cost.sample * evaluations,
        activation_bytes=cost.kept,
    )


def _cost(place: ResolvedStage, stage: Stage, num_classes: int | None, budget: _Budget) -> _Cost:
    """The cost of a stage, from traces of a few of its repeated parts."""
    config = place.config
    many = {n: low for n, low in config.repeated.items() if getattr(config, n) > low + 1}
    if not many:
        return _traced(place, stage, num_classes, budget)
    totals: list[int | None] = [0, 0, 0, 0]
    # Linear in each field: the corners of a cell of the grid determine all other points.
    for corner in itertools.product((0, 1), repeat=len(many)):
        update = {name: low + step for (name, low), step in zip(many.items(), corner, strict=True)}
        weight = 1
        for (name, low), step in zip(many.items(), corner, strict=True):
            further = getattr(config, name) - low
            weight *= further if step else 1 - further
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            with guard(stage, "__init__"):
                small = type(stage)(config.model_copy(update=update), stage.geometry).to("meta")
            small._owner = stage._owner
        cost = _traced(place, small, num_classes, budget)
        for index, value in enumerate((cost.forward, cost.graded, cost.kept, cost.sample)):
            total = totals[index]
            totals[index] = None if value is None or total is None else total + weight * value
    return _Cost(*totals)


def _traced(place: ResolvedStage, stage: Stage, num_classes: int | None, budget: _Budget) -> _Cost:
    counter, kept = _trace(place, stage, num_classes, budget)
    # A stage that draws candidates, encodes or has an adversary does more in training.
    differs = stage.network_evaluations() == 1
    forward = None if counter is None else counter.flops // stage.traced_images
    graded = None if counter is None else counter.graded // stage.traced_images
    each = _trace_sample(place, stage, num_classes, budget) if differs else graded
    return _Cost(forward, graded, kept, each)


def _image(shape: ImageShape, count: int = 1) -> Tensor:
    return torch.empty(count, shape.channels, shape.size, shape.size, device="meta")


def _labels(num_classes: int | None, count: int = 1) -> Tensor | None:
    if num_classes is None:
        return None
    return torch.zeros(count, dtype=torch.int64, device="meta")


def _trace_sample(
    place: ResolvedStage, stage: Stage, num_classes: int | None, budget: _Budget
) -> int | None:
    """FLOPs to sample one image; None if it cannot be traced."""
    draw = ImageDraw(0, place.name, 0, 1, "meta")
    request = SampleRequest(1, draw, _labels(num_classes))
    # A stage may sample in many steps. Half of the operations remain for the other stages.
    part = _Budget(budget.left // 2)
    counter = _Counter(part)
    try:
        with counter, torch.no_grad():
            stage.sample(None if place.input is None else _image(place.input), request)
    except (Exception, SystemExit) as error:
        if not _untraceable(stage, error):
            raise
        return None
    finally:
        budget.left -= budget.left // 2 - max(part.left, 0)
    return counter.flops


def _trace(
    place: ResolvedStage, stage: Stage, num_classes: int | None, budget: _Budget
) -> tuple[_Counter | None, int | None]:
    """FLOPs of a forward pass for all traced images, and bytes kept for one image's backward pass.

    Recomputed blocks keep their inputs, and the largest block the rest while the backward pass is
    in it.
    """
    count = stage.traced_images
    upstream = None if place.input is None else _image(place.input, count)
    context = TrainContext(Draw(0, device="meta"), _labels(num_classes, count))
    kept: dict[int, int] = {}
    inside: dict[nn.Module, dict[int, int]] = {}
    current: list[nn.Module] = []
    own = {t.untyped_storage()._cdata for t in (*stage.parameters(), *stage.buffers())}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            where = inside[current[-1]] if current else kept
            where[storage._cdata] = storage.nbytes()
        return tensor

    def enter(block: nn.Module, args: tuple[Any, ...]) -> None:
        for tensor in (arg for arg in args if isinstance(arg, Tensor)):
            pack(tensor)
        inside.setdefault(block, {})
        current.append(block)

    def leave(block: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        current.pop()

    hooks = []
    for block in recomputed_blocks(stage) if budget.recompute else ():
        hooks += [block.register_forward_pre_hook(enter), block.register_forward_hook(leave)]

    counter = _Counter(budget)
    try:
        saving = torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t)
        with counter, torch.enable_grad(), saving:
            stage(stage.preprocess(_image(place.output, count), upstream, context))
    except (Exception, SystemExit) as error:
        if not _untraceable(stage, error):
            raise
        return None, None
    finally:
        for hook in hooks:
            hook.remove()
    largest = max((sum(rows.values()) for rows in inside.values()), default=0)
    return counter, (sum(kept.values()) + largest) // count


def _untraceable(stage: Stage, error: BaseException) -> bool:
    """Whether an error of a trace only means that the cost is unknown.

    A plugin's stage may use operations that meta tensors do not support, and may raise anything
    for them. Its own faults are reported by the first training step.
    """
    owner = stage._owner
    return isinstance(error, RuntimeError) or not (owner is None or owner.builtin)


def stage_rows(cascade: Cascade) -> list[StageRow]:
    """The rows of metrics.json for the stages of a cascade, from the generator on."""
    resolved = cascade.resolved
    plan = {row.name: row for row in plan_stages(resolved, meta_cascade(resolved))}
    return [
        StageRow(
            name=stage.name,
            kind=stage.kind,
            output=str(stage.output),
            parameters=_saved_parameters(cascade.stage(stage.name)),
            evaluations=plan[stage.name].evaluations,
            flops=plan[stage.name].flops_sample,
        )
        for stage in cascade.resolved.stages
    ]


def _saved_parameters(stage: Stage) -> int:
    """Number of parameters after loading, without those that only training uses."""
    saved = stage.saved_state()
    return sum(p.numel() for name, p in stage.named_parameters() if name in saved)
