"""MeanFlow (Geng et al. 2025, "Mean Flows for One-step Generative Modeling").

Time runs from 0 (data) to 1 (noise), as in :mod:`cascadezoo.diffusion.flow`. The average velocity
``u(x_t, r, t)`` is the integral of the velocity from an earlier time r to t, divided by t - r. It
takes x_t to x_r in one step: ``x_r = x_t - (t - r) * u``. A network learns it from the identity
``u = v - (t - r) * du/dt``, whose right-hand side is its target.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor
from torch.autograd import forward_ad

__all__ = [
    "Average",
    "AverageNetwork",
    "adaptive_weights",
    "average_steps",
    "averaged_rows",
    "guided_velocity",
    "span_target",
    "total_derivative",
]

Average = Callable[[Tensor, float, float], Tensor]
"""Maps x_t [N, C, H, W], the time t and the earlier time r to the average velocity from r to t."""

AverageNetwork = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Maps x_t [N, C, H, W], times t [N] and spans t - r [N] to the average velocity."""

GRAIN = 1000
"""Shares of a batch are multiples of one in this number, so that integers select their rows."""


def averaged_rows(
    share: float, first: int, count: int, device: torch.device | str = "cpu"
) -> Tensor:
    """The rows of a part of a batch that have an earlier time r below t.

    They are spread evenly over the global batch, whose order is random. Their number is known
    without reading a tensor, and a row's choice does not depend on how the batch is divided.

    Args:
        share: of the rows, in [0, 1]; rounded to a thousandth.
        first: number of the part's first row in the global batch.
        count: number of rows in the part.
        device: of the result.

    Returns:
        int64 [K] in ascending order, from 0 to ``count - 1``.

    >>> averaged_rows(0.25, 8, 8).tolist()
    [0, 4]
    """
    kept = round(share * GRAIN)
    low, high = (-(-edge * kept // GRAIN) for edge in (first, first + count))
    numbers = torch.arange(low, high, device=device)
    return numbers * GRAIN // max(kept, 1) - first


def total_derivative(
    network: AverageNetwork, x: Tensor, times: Tensor, spans: Tensor, velocity: Tensor
) -> Tensor:
    """The derivative of the average velocity along the flow, ``v * du/dx + du/dt``.

    One forward pass in forward-mode differentiation, without a graph. With r fixed, the span grows
    as fast as t.

    Args:
        network: the average velocity.
        x: x_t, [N, C, H, W].
        times: t, [N].
        spans: t - r, [N].
        velocity: dx/dt, of the shape of ``x``.

    Returns:
        [N, C, H, W], of the type of the network's output.
    """
    _register_formulas()
    with torch.no_grad(), forward_ad.dual_level():
        ones = torch.ones_like(times)
        output = network(_dual(x, velocity.to(x)), _dual(times, ones), _dual(spans, ones))
        value, tangent = forward_ad.unpack_dual(output)  # type: ignore[no-untyped-call]
    return torch.zeros_like(value) if tangent is None else tangent


@cache
def _register_formulas() -> None:
    """Let PyTorch register its formulas, which warns of deprecated functions of its own."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.simplefilter("ignore", FutureWarning)
        _dual(torch.zeros((), device="cpu"), torch.zeros((), device="cpu"))


def _dual(value: Tensor, tangent: Tensor) -> Tensor:
    dual: Tensor = forward_ad.make_dual(value, tangent)  # type: ignore[no-untyped-call]
    return dual


def span_target(
    network: AverageNetwork, x: Tensor, times: Tensor, spans: Tensor, velocity: Tensor
) -> Tensor:
    """The target of the average velocity, ``v - (t - r) * (v * du/dx + du/dt)``.

    The paper's section 4.1; without gradient, as there. With a span of 0 it is ``v``. The arguments
    are those of :func:`total_derivative`.
    """
    slope = total_derivative(network, x, times, spans, velocity).to(velocity)
    return velocity - spans.view(-1, 1, 1, 1) * slope


def guided_velocity(
    velocity: Tensor, conditional: Tensor, unconditional: Tensor, omega: float, kappa: float
) -> Tensor:
    """The velocity of a field with guidance, from which a target with guidance follows.

    The paper's guidance with kappa (its appendix):
    ``omega * v + kappa * u(x, t, t | c) + (1 - omega - kappa) * u(x, t, t)``, whose scale of
    guidance is ``omega / (1 - kappa)``. Section 4.2 is the case of a kappa of 0.

    Args:
        velocity: of the sample's own path, [N, C, H, W].
        conditional: the network's velocity with the label, of the same shape.
        unconditional: its velocity without a label, of the same shape.
        omega: the weight of ``velocity``.
        kappa: the weight of ``conditional``.
    """
    return omega * velocity + kappa * conditional + (1 - omega - kappa) * unconditional


def adaptive_weights(errors: Tensor, power: float, floor: float) -> Tensor:
    """Weights ``1 / (error + floor) ** power`` without gradient (the paper's adaptive weights).

    Args:
        errors: squared errors, of any shape.
        power: 0 is the squared error itself, 0.5 is similar to its root, 1 weighs all images alike.
        floor: above 0.
    """
    return (errors.detach() + floor) ** -power


def average_steps(average: Average, x: Tensor, times: Sequence[float]) -> Iterator[Tensor]:
    """Steps of the average velocity, exact for any number of them if it is.

    Args:
        average: the average velocity.
        x: the image at the first time, [N, C, H, W].
        times: in descending order.

    Yields:
        The image at each time but the first.
    """
    for time, end in pairwise(times):
        x = x - (time - end) * average(x, time, end)
        yield x
