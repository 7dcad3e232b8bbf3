"""What stages do with a sampling request."""

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
    """Pixels limited to [-1, 1]; latents as they are."""
    return images if shape.latent else images.clamp(-1.0, 1.0)


def chosen_steps(asked: int | None, default: int, most: int | None = None) -> int:
    """How many steps to take.

    Args:
        asked: what the request says; None takes the default.
        default: the config's number.
        most: the largest number that the stage can take, if there is one.

    Raises:
        SampleError: fewer than one, or more than ``most``.
    """
    steps = default if asked is None else asked
    if steps < 1:
        raise SampleError(
            f"cannot sample in {steps} steps",
            hint="ask for 1 or more",
            code="sample-steps-invalid",
            steps=steps,
        )
    if most is not None and steps > most:
        raise SampleError(
            f"cannot sample in {steps} steps: the model was trained with {most} timesteps",
            hint=f"ask for 1 to {most}",
            code="sample-steps-too-many",
            steps=steps,
            most=most,
        )
    return steps


def chosen_sampler(asked: str | None, default: str, known: Collection[str]) -> str:
    """The name of the sampler to use.

    Raises:
        SampleError: there is none of that name.
    """
    name = default if asked is None else asked
    if name not in known:
        raise SampleError(
            f"there is no sampler {name!r} for this stage",
            hint=f"use one of {', '.join(sorted(known))}",
            code="sample-sampler-unknown",
            name=name,
        )
    return name


def checked_guidance(scale: float) -> float:
    """The scale of guidance that was asked for.

    Raises:
        SampleError: negative, infinite or nan.
    """
    if not math.isfinite(scale) or scale < 0:
        raise SampleError(
            f"cannot sample with a guidance of {scale:g}",
            hint="use 0 or more: 1 is none, 2 to 4 follow the label more closely",
            code="sample-guidance-invalid",
            value=scale,
        )
    return scale


def checked_interval(interval: Any) -> tuple[float, float]:
    """The lowest and highest noise level at which guidance acts.

    Raises:
        SampleError: not two rising numbers in [0, 1].
    """
    try:
        low, high = (float(end) for end in interval)
    except (TypeError, ValueError):
        low = high = math.nan
    if not 0 <= low < high <= 1:
        raise SampleError(
            f"{interval!r} is no guidance interval",
            hint="give two rising noise levels between 0 (clean) and 1 (pure noise)",
            code="sample-interval-invalid",
            value=interval,
        )
    return low, high


def share(options: Mapping[str, Any], name: str, hint: str) -> float | None:
    """An option that is a number in [0, 1]; None where it is not given.

    Raises:
        SampleError: anything else.
    """
    value = options.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise SampleError(
            f"{name} lies in 0..1, not {value!r}",
            hint=hint,
            code="sample-fraction-invalid",
            name=name,
            value=value,
        )
    return float(value)
