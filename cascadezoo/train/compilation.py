"""Whether a training compiles its networks."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cascadezoo.errors import InputError
from cascadezoo.nn.compiled import CompileScope, compiler_problem
from cascadezoo.spec import TrainingSpec

__all__ = ["CompileChoice", "choose_compilation"]


@dataclass(frozen=True, slots=True)
class _Expectation:
    """What compilation is expected to cost and gain on a type of device.

    Args:
        scope: what ``auto`` compiles.
        rate: FLOPs a second of an uncompiled training step.
        gain: the share of the training time that compiled code saves.
        seconds: the compilation of one network, forward and backward.
    """

    scope: CompileScope
    rate: float
    gain: float
    seconds: float


# Measured with the U-Net of flow.v1: 0.84 M parameters on two cores of a Xeon with avx512_bf16, and
# 3 M parameters on an H100; see docs/benchmarks.md.
_EXPECTATIONS = {
    "cpu": _Expectation("blocks", 6e10, 0.12, 60.0),
    "cuda": _Expectation("network", 3e13, 0.4, 60.0),
}


@dataclass(frozen=True, slots=True)
class CompileChoice:
    """The decision, and why.

    Args:
        scope: what is compiled; None compiles nothing.
        reason: for the log, e.g. ``"expected to save 300 s and to cost 60 s"``.
    """

    scope: CompileScope | None
    reason: str


def choose_compilation(
    training: TrainingSpec, device: torch.device, flops: float | None, networks: int
) -> CompileChoice:
    """Decide whether a training compiles its networks.

    Args:
        training: ``compile`` is what was asked for.
        device: of the training.
        flops: of the whole training; None where they are not known.
        networks: how many networks are trained.

    Raises:
        InputError: compilation was asked for and is not possible here.
    """
    if training.compile is False:
        return CompileChoice(None, "training.compile is false")
    problem = compiler_problem(device)
    if training.compile != "auto":
        if problem is not None:
            raise InputError(
                f"training.compile is {training.compile!r}, but {problem}",
                hint="set training.compile to false or auto",
            )
        scope: CompileScope = "network" if training.compile == "network" else "blocks"
        return CompileChoice(scope, f"training.compile is {training.compile!r}")
    expected = _EXPECTATIONS.get(device.type)
    if problem is not None or expected is None:
        return CompileChoice(None, problem or f"not tried on {device.type}")
    if flops is None:
        return CompileChoice(None, "the FLOPs of the training are not known")
    saved = flops / expected.rate * expected.gain
    cost = expected.seconds * networks
    told = f"expected to save {saved:,.0f} s and to cost {cost:,.0f} s"
    return CompileChoice(expected.scope if saved > 2 * cost else None, told)
