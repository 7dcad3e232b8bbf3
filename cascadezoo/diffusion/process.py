"""The forward process and its predictions.

A noised image is ``x_t = alpha * x0 + sigma * eps`` with ``alpha**2 + sigma**2 == 1`` (Ho et al.
2020, eq. 4). ``alpha`` and ``sigma`` are floats, or tensors that broadcast against the image. The
conversions follow from that equation and from ``v = alpha * eps - sigma * x0`` (Salimans & Ho
2022, appendix D).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, assert_never

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "Prediction",
    "add_noise",
    "continuous_rates",
    "dynamic_threshold",
    "eps_from_v",
    "eps_from_x0",
    "level_rates",
    "noise_table",
    "prediction_target",
    "rates_at",
    "v_from_x0_eps",
    "x0_from_eps",
    "x0_from_prediction",
    "x0_from_v",
]

Prediction = Literal["eps", "x0", "v"]
Rate = float | Tensor


def noise_table(signal: Sequence[float], dtype: torch.dtype = torch.float32) -> Tensor:
    """The rates alpha and sigma of every timestep, computed in float64.

    Args:
        signal: ``alphas_cumprod``, the variance that the signal keeps at each timestep.
        dtype: type of the table.

    Returns:
        [T, 2] on the CPU, independent of the default device.
    """
    rows = [(math.sqrt(s), math.sqrt(1 - s)) for s in signal]
    return torch.tensor(rows, dtype=dtype, device="cpu")


def rates_at(table: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
    """The rates alpha and sigma of a batch of images.

    Args:
        table: the result of :func:`noise_table`.
        timesteps: int64 [N].

    Returns:
        Two tensors [N, 1, 1, 1].
    """
    alpha, sigma = table[timesteps].unbind(1)
    return alpha.view(-1, 1, 1, 1), sigma.view(-1, 1, 1, 1)


def continuous_rates(signal: Tensor, position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The rates between timesteps, for a network that receives the level, not the timestep.

    Chen et al. 2021 (WaveGrad, section 3.2) and Saharia et al. 2021 (SR3, algorithm 1):
    ``alphas_cumprod`` is interpolated linearly between timesteps, and from 1 to the first.

    Args:
        signal: ``alphas_cumprod`` of all timesteps, [T].
        position: [N], in [0, T); timestep t is at position t + 1.

    Returns:
        alpha and sigma, [N, 1, 1, 1], and the noise level, [N], in 0..1.
    """
    before = F.pad(signal[:-1], (1, 0), value=1.0)
    timestep = position.long().clamp(max=signal.shape[0] - 1)
    kept = torch.lerp(before[timestep], signal[timestep], (position - timestep).to(signal.dtype))
    alpha, sigma = kept.sqrt(), (1 - kept).sqrt()
    level = torch.atan2(sigma, alpha) * (2 / math.pi)
    return alpha.view(-1, 1, 1, 1), sigma.view(-1, 1, 1, 1), level


def level_rates(level: Tensor) -> tuple[Tensor, Tensor]:
    """The rates alpha and sigma, [N, 1, 1, 1], at noise levels [N] in 0..1."""
    angle = level.view(-1, 1, 1, 1) * (math.pi / 2)
    return angle.cos(), angle.sin()


def add_noise(x0: Tensor, eps: Tensor, alpha: Rate, sigma: Rate) -> Tensor:
    """The noised image x_t (Ho et al. 2020, eq. 4)."""
    return alpha * x0 + sigma * eps


def x0_from_eps(x_t: Tensor, eps: Tensor, alpha: Rate, sigma: Rate) -> Tensor:
    """The clean image from the noise. Infinite where alpha is 0 (zero terminal SNR)."""
    return (x_t - sigma * eps) / alpha


def eps_from_x0(x_t: Tensor, x0: Tensor, alpha: Rate, sigma: Rate) -> Tensor:
    """The noise from the clean image. Infinite where sigma is 0 (no noise)."""
    return (x_t - alpha * x0) / sigma


def v_from_x0_eps(x0: Tensor, eps: Tensor, alpha: Rate, sigma: Rate) -> Tensor:
    """The velocity v (Salimans & Ho 2022)."""
    return alpha * eps - sigma * x0


def x0_from_v(x_t: Tensor, v: Tensor, alpha: Rate, sigma: Rate) -> Tensor:
    """The clean image from the velocity; finite at every timestep."""
    return alpha * x_t - sigma * v


def eps_from_v(x_t: Tensor, v: Tensor, alpha: Rate, sigma: Rate) -> Tensor:
    """The noise from the velocity; finite at every timestep."""
    return alpha * v + sigma * x_t


def prediction_target(
    prediction: Prediction, x0: Tensor, eps: Tensor, alpha: Rate, sigma: Rate
) -> Tensor:
    """The training target of a network with this prediction."""
    if prediction == "eps":
        return eps
    if prediction == "x0":
        return x0
    if prediction == "v":
        return v_from_x0_eps(x0, eps, alpha, sigma)
    assert_never(prediction)


def x0_from_prediction(
    prediction: Prediction, x_t: Tensor, output: Tensor, alpha: Rate, sigma: Rate
) -> Tensor:
    """The clean image from the output of a network."""
    if prediction == "eps":
        return x0_from_eps(x_t, output, alpha, sigma)
    if prediction == "x0":
        return output
    if prediction == "v":
        return x0_from_v(x_t, output, alpha, sigma)
    assert_never(prediction)


def dynamic_threshold(x0: Tensor, quantile: float) -> Tensor:
    """Clip an estimate of the clean image to a range of its own, and scale that to [-1, 1].

    Saharia et al. 2022 ("Photorealistic Text-to-Image Diffusion Models", section 2.3): the bound is
    the given quantile of the absolute values of each image, at least 1. Values are computed in
    float32.

    Args:
        x0: [N, C, H, W].
        quantile: from 0 to 1.

    Returns:
        Images in [-1, 1], of the type of ``x0``.
    """
    values = x0.float()
    bound = torch.quantile(values.abs().flatten(1), quantile, dim=1).clamp(min=1.0)
    bound = bound.view(-1, 1, 1, 1)
    return (values.clamp(-bound, bound) / bound).to(x0.dtype)
