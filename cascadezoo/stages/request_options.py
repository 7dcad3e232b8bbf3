"""Checks of the options of a sampling request."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from cascadezoo.errors import SampleError
from cascadezoo.spec.configs import ImageShape

__all__ = [
    "bounded",
    "checked_guidance",
    "checked_interval",
    "chosen_sampler",
    "chosen_steps",
    "share",
]


def bounded(images: Tensor, shape: ImageShape) -> Tensor:
    """Limit pixels to [-1, 1]; return latents unchanged."""
    return images if shape.latent else images.clamp(-1.0, 1.0)


def chosen_steps(requested: int | None, default: int, most: int | None = None) -> int:
    """The number of sampling steps.

    Args:
        requested: the number in the request; None uses the default.
        default: the config's number.
        most: the stage's maximum, if any.

    Raises:
        SampleError: fewer than one, or more than ``most``.
    """
    steps = default if requested is None else requested
    if steps < 1:
        raise SampleError(
            f"cannot sample in {steps} steps",
            hint="use 1 or more",
            code="sample-steps-invalid",
            steps=steps,
        )
    if most is not None and steps > most:
        raise SampleError(
            f"cannot sample in {steps} steps: the model was trained with {most} timesteps",
            hint=f"use 1 to {most}",
            code="sample-steps-too-many",
            steps=steps,
            most=most,
        )
    return steps


def chosen_sampler(requested: str | None, default: str, known: Collection[str]) -> str:
    """The name of the sampler to use.

    Raises:
        SampleError: the stage has no sampler of this name.
    """
    name = default if requested is None else requested
    if name not in known:
        raise SampleError(
            f"this stage has no sampler {name!r}",
            hint=f"use one of {', '.join(sorted(known))}",
            code="sample-sampler-unknown",
            name=name,
        )
    return name


def checked_guidance(scale: float) -> float:
    """Check the scale of guidance.

    Raises:
        SampleError: negative, infinite or nan.
    """
    if not math.isfinite(scale) or scale < 0:
        raise SampleError(
            f"cannot sample with guidance {scale:g}",
            hint="use 0 or more: 1 is none, 2 to 4 follow the label more closely",
            code="sample-guidance-invalid",
            value=scale,
        )
    return scale


def checked_interval(interval: Any) -> tuple[float, float]:
    """Check the lowest and highest noise level with guidance.

    Raises:
        SampleError: not two increasing numbers in [0, 1].
    """
    try:
        low, high = (float(end) for end in interval)
    except (TypeError, ValueError):
        low = high = math.nan
    if not 0 <= low < high <= 1:
        raise SampleError(
            f"invalid guidance interval {interval!r}",
            hint="give two increasing noise levels between 0 (clean) and 1 (pure noise)",
            code="sample-interval-invalid",
            value=interval,
        )
    return low, high


def share(options: Mapping[str, Any], name: str, hint: str) -> float | None:
    """An option that is a number in [0, 1]; None if it is not set.

    Raises:
        SampleError: anything else.
    """
    value = options.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise SampleError(
            f"{name} must be between 0 and 1, not {value!r}",
            hint=hint,
            code="sample-fraction-invalid",
            name=name,
            value=value,
        )
    return float(value)
