"""Calls of a stage's methods, with checks of what they return.

A stage of a plugin may raise anything and return anything. Both become a PluginError that names
the stage, its kind, its distribution, and file and line.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cascadezoo.errors import CascadezooError, PluginError, SampleError
from cascadezoo.plugins.faults import Guard
from cascadezoo.plugins.tracebacks import own_definition
from cascadezoo.spec.configs import ImageShape
from cascadezoo.stages.base import SampleRequest, Stage

__all__ = [
    "FiniteChecks",
    "guard",
    "require_tensor",
    "sample",
    "stage_fault",
    "upstream_request",
    "upstream_target",
]


def guard(
    stage: Stage, method: str, *, passes: Callable[[BaseException], bool] | None = None
) -> Guard:
    """A context for a call of a stage's method, which blames its plugin for exceptions.

    Args:
        stage: the stage.
        method: the name of the method.
        passes: returns True for an error that is not to be converted.
    """
    return Guard(stage._owner, f"in {method}", getattr(type(stage), method, None), passes)


def stage_fault(stage: Stage, method: str, what: str, *, code: str, **fields: Any) -> PluginError:
    """The error for a wrong result of a stage's method.

    Args:
        stage: the stage.
        method: the name of the method.
        what: what is wrong, as the end of a sentence.
        code: the code of the error.
        fields: values in the message by name.
    """
    where = own_definition(getattr(type(stage), method, None))
    if stage._owner is not None:
        return stage._owner.fault(what, code=code, where=where, method=method, **fields)
    kind = type(stage).__name__
    return PluginError(f"the stage {kind} {what}", code=code, kind=kind, where=where, **fields)


def require_tensor(
    stage: Stage,
    method: str,
    what: str,
    value: Any,
    *,
    shape: tuple[int, ...],
    device: torch.device,
    dtype: torch.dtype | None = torch.float32,
) -> None:
    """Check type, shape, dtype and device of a result, without waiting for the device.

    Args:
        stage: the stage.
        method: the method that returned it.
        what: its name in messages.
        value: the result.
        shape: the expected shape.
        device: the expected device.
        dtype: the expected type; None accepts any floating-point type.

    Raises:
        PluginError: the result is something else.
    """
    if not isinstance(value, Tensor):
        raise stage_fault(
            stage,
            method,
            f"returned a {type(value).__name__} as {what}, not a tensor",
            code="plugin-output-type",
        )
    wanted = f"{dtype or 'floating'} {list(shape)} on {device}"
    floating = value.is_floating_point() if dtype is None else value.dtype == dtype
    if tuple(value.shape) != shape or not floating or not _same(value.device, device):
        raise stage_fault(
            stage,
            method,
            f"returned {value.dtype} {list(value.shape)} on {value.device} as {what}, not {wanted}",
            code="plugin-output-shape",
            shape=tuple(value.shape),
            dtype=str(value.dtype),
        )


class FiniteChecks:
    """Collects on the device whether sampled images are finite, and tokens of their vocabulary.

    The results are read once for all batches.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[Stage, Tensor]] = []

    def add(self, stage: Stage, images: Tensor) -> None:
        """Add a batch of a stage."""
        # One pass without a mask in memory: NaN and infinity reach the extremes.
        low, high = torch.aminmax(images.detach())
        flag = torch.isfinite(low) & torch.isfinite(high)
        tokens = stage.geometry.output.tokens
        if tokens is not None:
            whole = (images.detach() == images.detach().round()).all()
            flag = flag & whole & (low >= 0) & (high < tokens)
        self._rows.append((stage, flag))

    def require(self) -> None:
        """Check all batches. Waits for the device once.

        Raises:
            PluginError: the images of a plugin's stage are not finite, or are not tokens where
                tokens are needed.
            SampleError: the images of a built-in stage are not finite.
        """
        if not self._rows or bool(torch.stack([flag for _, flag in self._rows]).all()):
            return
        raise _not_finite(next(stage for stage, flag in self._rows if not flag))


def _not_finite(stage: Stage) -> CascadezooError:
    owner = stage._owner
    tokens = stage.geometry.output.tokens
    if tokens is not None:
        return stage_fault(
            stage,
            "sample",
            f"sampled tokens that are not whole numbers from 0 to {tokens - 1}",
            code="plugin-samples-not-tokens",
            tokens=tokens,
        )
    if owner is None or not owner.builtin:
        return stage_fault(
            stage,
            "sample",
            "sampled images that are not finite",
            code="plugin-samples-not-finite",
        )
    return SampleError(
        f"stage {owner.name!r} ({owner.entry.name}) sampled images that are not finite",
        hint="its training diverged, or the precision is too low: use --precision fp32, or train "
        "again with a lower learning rate",
        code="sample-not-finite",
        name=owner.name,
    )


def upstream_target(stage: Stage, images: Tensor) -> Tensor:
    """Compute the target of the stage before one.

    Raises:
        PluginError: the stage fails, or returns something else than its input shape.
    """
    with guard(stage, "upstream_target"):
        target = stage.upstream_target(images)
    shape = stage.geometry.input
    if shape is not None:
        require_tensor(
            stage,
            "upstream_target",
            "the upstream target",
            target,
            shape=_batch(len(images), shape),
            device=images.device,
            dtype=None,
        )
    return target


def upstream_request(stage: Stage, request: SampleRequest) -> SampleRequest:
    """The request of a stage for the stage before it.

    Raises:
        PluginError: the stage fails or returns no request.
    """
    with guard(stage, "upstream_request"):
        passed = stage.upstream_request(request)
    if not isinstance(passed, SampleRequest):
        raise stage_fault(
            stage,
            "upstream_request",
            f"returned a {type(passed).__name__}, not a SampleRequest",
            code="plugin-output-type",
        )
    return passed


def sample(
    stage: Stage,
    upstream: Tensor | None,
    request: SampleRequest,
    *,
    passes: Callable[[BaseException], bool] | None = None,
    size: tuple[int, int] | None = None,
    checks: FiniteChecks | None = None,
) -> Tensor:
    """Sample a batch of a stage's images.

    Args:
        stage: the stage in eval mode.
        upstream: its input.
        request: the request.
        passes: returns True for an error of the caller's own code, e.g. of ``request.watch``.
        size: the expected height and width; None is that of the stage's output shape.
        checks: takes the check for numbers that are not finite; None checks at once.

    Returns:
        float32 [N, C, H, W] of the stage's output shape, or of ``size``.

    Raises:
        PluginError: the stage fails, or returns something else or images that are not finite.
        SampleError: a built-in stage refuses the request, or its images are not finite.
    """
    with guard(stage, "sample", passes=passes):
        images = stage.sample(upstream, request)
    shape = _batch(request.count, stage.geometry.output)
    require_tensor(
        stage,
        "sample",
        "the images",
        images,
        shape=shape if size is None else (*shape[:2], *size),
        device=request.draw.device,
        dtype=None,
    )
    images = images.float()
    finite = FiniteChecks() if checks is None else checks
    finite.add(stage, images)
    if checks is None:
        finite.require()
    return images


def _same(device: torch.device, other: torch.device) -> bool:
    """Whether two devices are the same; a device without an index is any of its type."""
    indices = {device.index, other.index} - {None}
    return device.type == other.type and len(indices) < 2


def _batch(count: int, shape: ImageShape) -> tuple[int, ...]:
    return (count, shape.channels, shape.size, shape.size)
