"""The choice whether a training compiles its networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.cascade.stage_costs import stage_rows
from cascadezoo.errors import InputError
from cascadezoo.nn.compiled import compiler_problem
from cascadezoo.spec import TrainingSpec
from cascadezoo.util.processes import process_count

__all__ = [
    "Acceleration",
    "CompileChoice",
    "SamplingCompile",
    "choose_compilation",
    "compile_for_sampling",
]

Acceleration: TypeAlias = Literal["blocks", "network", "graphs"]
"""What makes training steps faster: ``torch.compile`` of blocks or networks, or CUDA graphs."""


SamplingCompile: TypeAlias = Literal["auto", "blocks", "network", "no"]
"""The requested compilation of a cascade that only samples."""


# Measured with the U-Net of flow.v1, 0.84 M parameters, on a Xeon with avx512_bf16: FLOPs per
# second of an eager step on one thread, the share of the time that compiled blocks save, and the
# seconds to compile a network; see docs/benchmarks.md.
_RATE, _GAIN, _SECONDS = 6e10, 0.12, 90.0


@dataclass(frozen=True, slots=True)
class CompileChoice:
    """The choice and its reason.

    Args:
        scope: the compiled part; None compiles nothing.
        reason: for the log, e.g. ``"expected to save 300 s and to cost 60 s"``.
    """

    scope: Acceleration | None
    reason: str


def choose_compilation(
    training: TrainingSpec, device: torch.device, flops: float | None, networks: int
) -> CompileChoice:
    """Decide whether a training compiles its networks.

    Args:
        training: ``compile`` is the requested value.
        device: the training device.
        flops: FLOPs of the whole training; None if unknown.
        networks: number of trained networks.

    Raises:
        InputError: the requested compilation is not possible here.
    """
    requested = training.compile
    if training.recompute and requested not in (False, "auto"):
        raise InputError(
            f"training.compile is {requested!r}, which does not work with training.recompute",
            hint="set training.compile to false or auto, or training.recompute to false",
            code="input-compile-recompute",
        )
    sharded = training.parallel == "fsdp" and process_count() > 1
    if sharded and requested not in (False, "auto"):
        raise InputError(
            f"training.compile is {requested!r}, which does not work with training.parallel 'fsdp'",
            hint="set training.compile to false or auto, or training.parallel to ddp",
            code="input-compile-fsdp",
        )
    if training.recompute:
        return CompileChoice(None, "training.recompute is true")
    if sharded:
        return CompileChoice(None, "training.parallel is fsdp")
    if requested is False:
        return CompileChoice(None, "training.compile is false")
    if requested == "graphs" or (requested == "auto" and device.type == "cuda"):
        if device.type != "cuda":
            raise InputError(
                f"training.compile is 'graphs', but {device.type} has no CUDA graphs",
                hint="set training.compile to false or auto",
                code="input-compile-graphs",
                device=device.type,
            )
        return CompileChoice("graphs", "CUDA graphs cost seconds and save every launch")
    if requested != "auto":
        problem = compiler_problem(device)
        if problem is not None:
            raise InputError(
                f"training.compile is {requested!r}, but {problem}",
                hint="set training.compile to false or auto",
                code="input-compile-impossible",
                device=device.type,
            )
        scope: Acceleration = "network" if requested == "network" else "blocks"
        return CompileChoice(scope, f"training.compile is {requested!r}")
    if device.type != "cpu":
        return CompileChoice(None, f"not tried on {device.type}")
    if flops is None:
        return CompileChoice(None, "the FLOPs of the training are not known")
    return _by_gain(flops, networks, device)


def compile_for_sampling(cascade: Cascade, requested: SamplingCompile, count: int) -> CompileChoice:
    """Compile the networks of a cascade that only samples, if that is requested or pays.

    Args:
        cascade: compiled in place by :meth:`Cascade.compile`.
        requested: ``auto`` compiles blocks on a CPU if that is expected to save more than twice the
            time that it takes.
        count: number of images to sample.

    Returns:
        The choice; its scope is what was compiled.

    Raises:
        InputError: the requested compilation is not possible here.
    """
    if requested == "no":
        return CompileChoice(None, "not requested")
    if requested == "auto":
        choice = _sampling_choice(cascade, count)
    else:
        choice = CompileChoice(requested, f"{requested!r} was requested")
    if choice.scope == "blocks" or choice.scope == "network":
        cascade.compile(choice.scope)
    return choice


def _sampling_choice(cascade: Cascade, count: int) -> CompileChoice:
    if cascade.device.type != "cpu":
        return CompileChoice(None, f"not tried on {cascade.device.type}")
    rows = stage_rows(cascade)
    flops = [row.flops for row in rows]
    if any(each is None for each in flops):
        return CompileChoice(None, "the FLOPs of an image are not known")
    networks = sum(row.parameters > 0 for row in rows)
    return _by_gain(count * float(sum(filter(None, flops))), networks, cascade.device)


def _by_gain(flops: float, networks: int, device: torch.device) -> CompileChoice:
    saved = flops / (_RATE * torch.get_num_threads()) * _GAIN
    cost = _SECONDS * networks
    reason = f"expected to save {saved:,.0f} s and to cost {cost:,.0f} s"
    if saved <= 2 * cost:
        return CompileChoice(None, reason)
    # Only now, because it imports the compiler, which takes seconds.
    problem = compiler_problem(device)
    return CompileChoice("blocks" if problem is None else None, problem or reason)
